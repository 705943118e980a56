"""Means over the tokens of turns, and sums over layers: what is read is what the bare model computes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pairs import EXECUTORS, in_pairs
from tiny import CACHE, TOKENIZER, Fixed, engine, generate, plan, random_vector, steering
from transformers import DynamicCache
from waiting import on_a_device

from guardrail.bench.plans import PlanEvaluator
from guardrail.engines import Prompt
from guardrail.errors import PromptError, UnsupportedGeneration
from guardrail.testing import hand_made_plan
from guardrail.types import Probe, ProbeSite

TALKS = ("hello world", "z", "what is this that I ask?", "one more prompt")
CHAT = "<s><|user|>Hi<|end|><|assistant|>Yes<|end|><|user|>{}<|end|><|assistant|>"
PLACES = ((2, "user_mean", True), (1, "prompt_mean", False), (3, "last", True), (3, "user_mean", False))
"""Layer, position, and whether the norm counts, of each site."""
GREEDY = {"do_sample": False}


def site(layer, position, normalised, seed=0):
    weights = random_vector(layer + 10 * seed)
    return ProbeSite(layer=layer, position=position, normalised=normalised, weights=weights)


def alone(layer, position, normalised=False, **keys):
    one = site(layer, position, normalised)
    return Probe(
        trait="t", layer=layer, weights=one.weights, position=position, normalised=normalised, **keys
    )


def summed(*places, offset=0.25):
    *earlier, last = [site(*place, seed=i) for i, place in enumerate(sorted(places))]
    return Probe(
        trait="t",
        layer=last.layer,
        weights=last.weights,
        offset=offset,
        position=last.position,
        normalised=last.normalised,
        earlier=tuple(earlier),
    )


PROBES = (*(alone(*place) for place in PLACES), summed(*PLACES), alone(2, "last"), summed(*PLACES[:2]))


def reading(*probes):
    """A plan that decides by these probes."""
    rule = hand_made_plan().rules[0]
    conditions = tuple(
        replace(rule.conditions[0], layer=probe.layer, reading=i, threshold=1e6)
        for i, probe in enumerate(probes)
    )
    return replace(hand_made_plan(), probes=probes, rules=(replace(rule, conditions=conditions),))


def ids_of(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def prompts(texts=TALKS):
    """Prompts with their spans, which are known here because every byte is a token."""
    found = []
    for text in texts:
        ids = tuple(ids_of(CHAT.format(text)))
        start = len(ids_of(CHAT.partition("{")[0]))
        found.append(
            Prompt(ids, spans={"user_mean": ((start, start + len(text)),), "prompt_mean": ((0, len(ids)),)})
        )
    return found


def states_of(bare, prompt):
    """Each layer's states of the whole prompt alone."""
    with torch.no_grad():
        return bare(torch.tensor([prompt.ids]), output_hidden_states=True).hidden_states


def expected(states, prompt, probe):
    """The projection of a prompt with these states, in float64."""
    total = probe.offset
    for one in probe.sites:
        rows = states[one.layer][0].double().numpy()
        spans = prompt.spans.get(one.position, ((len(prompt.ids) - 1, len(prompt.ids)),))
        pooled = np.concatenate([rows[a:b] for a, b in spans]).mean(0) if spans else None
        if pooled is None:
            total += one.absent
            continue
        total += (pooled / np.linalg.norm(pooled) if one.normalised else pooled) @ one.weights
    return total


def check(bare, found, given, probes):
    states = [states_of(bare, prompt) for prompt in given]
    wanted = [
        [expected(s, prompt, probe) for probe in probes] for s, prompt in zip(states, given, strict=True)
    ]
    np.testing.assert_allclose([found[row] for row in range(len(given))], wanted, rtol=1e-4, atol=1e-5)


def inputs(given, side):
    return dict(
        TOKENIZER.pad({"input_ids": [list(p.ids) for p in given]}, padding_side=side, return_tensors="pt")
    )


@pytest.mark.usefixtures("executors")
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral", "gemma3_text"])
def test_a_check_reads_what_the_model_computes_for_each_prompt_alone(architecture):
    given, evaluator = prompts(), Fixed()
    with engine(architecture) as (made, bare):
        made.check(given, reading(*PROBES), evaluator, lambda event: None)
        check(bare, evaluator.readings, given, PROBES)


MODES = {
    "greedy": {},
    "beams": {"num_beams": 2},
    "returned beams": {"num_beams": 3, "num_return_sequences": 2},
    "samples": {"do_sample": True, "num_return_sequences": 2},
}


@pytest.mark.usefixtures("executors")
@in_pairs(executors=EXECUTORS, mode=MODES, side=["left", "right"])
def test_generate_finds_the_users_text_in_the_ids_on_either_side(side, mode):
    given, evaluator = prompts(), Fixed()
    with engine() as (made, bare):
        generate(made, reading(*PROBES), evaluator, **inputs(given, side), **{**GREEDY, **mode})
        check(bare, evaluator.readings, given, PROBES)


def test_the_order_and_company_of_prompts_change_nothing():
    given = prompts()
    with engine() as (made, _):
        found = []
        for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2], [1, 1, 2]):
            evaluator = Fixed()
            made.check([given[i] for i in order], reading(*PROBES), evaluator, lambda event: None)
            found += [(i, evaluator.readings[row]) for row, i in enumerate(order)]
    first = dict(found[:4])
    for i, readings in found:
        np.testing.assert_allclose(readings, first[i], rtol=1e-4, atol=1e-5)


def test_tokens_that_a_mask_leaves_out_have_no_part_in_a_mean():
    (prompt,) = prompts(TALKS[:1])
    ids = torch.tensor([prompt.ids])
    with engine() as (made, bare):
        kept = torch.ones_like(ids)
        hidden = [0, prompt.spans["user_mean"][0][0] + 4]
        for column in hidden:
            # a byte that would change every mean
            padded = torch.cat([ids[:, :column], torch.tensor([[9]]), ids[:, column:]], 1)
            kept = torch.cat([kept[:, :column], torch.zeros(1, 1, dtype=kept.dtype), kept[:, column:]], 1)
            ids = padded
        evaluator, positions = Fixed(), (kept.cumsum(-1) - 1).clamp(min=0)
        generate(
            made,
            reading(*PROBES),
            evaluator,
            input_ids=ids,
            attention_mask=kept,
            position_ids=positions,
            **GREEDY,
        )
        check(bare, evaluator.readings, [prompt], PROBES)


def test_several_runs_are_one_mean_and_no_run_is_what_the_probe_says():
    tools = replace(alone(3, "tool_mean", absent=-1.5), offset=2.0)
    both = replace(summed((1, "last", False), (2, "tool_mean", True)), layer=2)
    both = replace(both, absent=0.75)
    first, second, third = prompts(TALKS[:3])
    given = [
        replace(first, spans={**first.spans, "tool_mean": ((2, 4), (6, 7))}),
        replace(second, spans={**second.spans, "tool_mean": ()}),
        replace(third, spans={**third.spans, "tool_mean": ((1, 9),)}),
    ]
    for batch in (given, given[1:2], given[:1]):
        evaluator = Fixed()
        with engine() as (made, bare):
            made.check(batch, reading(tools, both), evaluator, lambda event: None)
            check(bare, evaluator.readings, batch, (tools, both))
        if len(batch) == 1 and not batch[0].spans["tool_mean"]:
            assert evaluator.readings[0][0] == 0.5


def test_the_pass_ends_at_the_last_site():
    given, passes = prompts(), []
    with engine() as (made, _):
        for layer, block in enumerate(made.blocks, 1):
            block.register_forward_pre_hook(lambda m, a, layer=layer: passes.append(layer))
        probe = summed((1, "prompt_mean", False), (2, "user_mean", True))
        active = reading(probe)
        assert active.layers == (1, 2)
        assert active.positions == {"prompt_mean", "user_mean"}
        made.check(given, active, Fixed(), lambda event: None)
    assert passes == [1, 2]


@pytest.mark.usefixtures("executors")
def test_replies_are_those_of_the_bare_model_and_blocked_rows_leave():
    given = prompts()
    with engine() as (made, bare):
        plain = bare.generate(**inputs(given, "left"), max_new_tokens=6, pad_token_id=0, **GREEDY)
        allowed = generate(made, reading(*PROBES), Fixed(), **inputs(given, "left"), **GREEDY)
        assert torch.equal(allowed.output, plain)
        some = generate(made, reading(*PROBES), Fixed(("block", "allow")), **inputs(given, "left"), **GREEDY)
        assert some.kept == [1, 3]


@pytest.mark.usefixtures("executors")
@pytest.mark.parametrize("layers", [(3, 4), (1, 4)], ids=["in the same pass", "computed again"])
def test_the_device_steers_by_sums_as_the_host_does(monkeypatch, layers):
    given, found = prompts(), []
    probe = summed((1, "prompt_mean", False), (3, "user_mean", True))
    with engine() as (made, bare):
        scores = [expected(states_of(bare, prompt), prompt, probe) for prompt in given]
        active = reading(probe)
        (rule,) = active.rules
        condition = replace(rule.conditions[0], threshold=sorted(scores)[2] - 1e-3)
        steered = steering("add", layers).renamed(rule.id)
        rule = replace(rule, action="steer", steering=steered, conditions=(condition,))
        active = replace(active, rules=(rule,))
        for elsewhere in (False, True):
            on_a_device(monkeypatch, elsewhere)
            found.append(generate(made, active, PlanEvaluator(active), **inputs(given, "left"), **GREEDY))
    host, device = found
    assert torch.equal(host.output, device.output)
    assert [d.action for d in host.decisions] == [d.action for d in device.decisions]
    assert sorted(d.action for d in host.decisions) == ["allow", "allow", "steer", "steer"]


def filled(model, ids):
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(ids, use_cache=True, **{CACHE: cache})
    return cache


def test_a_cache_that_hides_what_is_read_is_refused_and_any_other_is_not():
    (prompt,) = prompts(TALKS[2:3])
    ids, (start, end) = torch.tensor([prompt.ids]), prompt.spans["user_mean"][0]
    with engine() as (made, bare):
        active, evaluator = reading(alone(2, "user_mean"), alone(3, "last")), Fixed()
        generate(made, active, evaluator, input_ids=ids, **{CACHE: filled(bare, ids[:, :start])}, **GREEDY)
        check(bare, evaluator.readings, [prompt], active.probes)
        hiding = [
            (active, ids, filled(bare, ids[:, : start + 1])),
            (reading(alone(2, "prompt_mean")), ids, filled(bare, ids[:, :1])),
        ]
        for refused, whole, cache in hiding:
            before = cache.get_seq_length()
            with pytest.raises(UnsupportedGeneration, match="hides some of its tokens"):
                generate(made, refused, Fixed(), input_ids=whole, **{CACHE: cache}, **GREEDY)
            assert cache.get_seq_length() == before
        with pytest.raises(UnsupportedGeneration, match="without a cache"):
            generate(
                made,
                reading(alone(2, "prompt_mean")),
                Fixed(),
                input_ids=ids[:, end:],
                attention_mask=torch.ones_like(ids),
                **{CACHE: filled(bare, ids[:, :end])},
                **GREEDY,
            )
        last = Fixed()
        generate(
            made, plan((3,)), last, input_ids=ids, **{CACHE: filled(bare, ids[:, : start + 1])}, **GREEDY
        )
        assert last.readings


def test_a_prompt_that_was_not_rendered_for_a_position_is_an_error():
    (prompt,) = prompts(TALKS[:1])
    with engine() as (made, _), pytest.raises(PromptError, match="not known in this prompt"):
        made.check([Prompt(prompt.ids)], reading(alone(2, "user_mean")), Fixed(), lambda event: None)


def test_the_start_of_a_prompt_is_cut_off_only_if_nobody_reads_it():
    (prompt,) = prompts(TALKS[:1])
    ((start, end),) = prompt.spans["user_mean"]
    only = replace(prompt, spans={"user_mean": prompt.spans["user_mean"]})
    cut = only.tail(start)
    assert (cut.ids, cut.spans) == (prompt.ids[start:], {"user_mean": ((0, end - start),)})
    for one, dropped in ((only, start + 1), (prompt, 1)):
        with pytest.raises(PromptError, match="would be cut off"):
            one.tail(dropped)
