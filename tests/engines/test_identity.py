"""Allowed prompts: the output is that of a model that was never wrapped, token for token."""

import sys
from dataclasses import replace

import pytest
import torch
from pairs import EXECUTORS, in_pairs
from tiny import CACHE, TOKENIZER, Fixed, batch, engine, generate, plan, random_vector, steering
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
)
from waiting import on_a_device, waits

from guardrail.engines import Prompt
from guardrail.engines.transformers.blocks import decoder_blocks
from guardrail.engines.transformers.steering import BatchSteering
from guardrail.testing import ARCHITECTURES
from guardrail.types import Message

pytestmark = pytest.mark.usefixtures("executors")

MODES = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "top_k": 0},
    "beams": {"num_beams": 3, "do_sample": False},
    "several samples": {"do_sample": True, "num_return_sequences": 2},
}
BATCHES = {"one": (1, "left"), "padded on the left": (8, "left"), "padded on the right": (8, "right")}


def both(made, bare, active, evaluator, **kwargs):
    return plain(bare, **kwargs), seeded(made, active, evaluator, **kwargs)


def plain(bare, **kwargs):
    torch.manual_seed(3)
    return bare.generate(**{"max_new_tokens": 6, "pad_token_id": 0, **kwargs})


def seeded(made, active, evaluator, **kwargs):
    torch.manual_seed(3)
    return generate(made, active, evaluator, **kwargs).output


@in_pairs(executors=EXECUTORS, architecture=ARCHITECTURES, rows=BATCHES, mode=MODES)
def test_allowed_output_is_token_identical(architecture, rows, mode):
    with engine(architecture) as (made, bare):
        expected, output = both(made, bare, plan((2, 3)), Fixed(), **batch(*rows), **mode)
    assert torch.equal(output, expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_prompt_token_is_computed_once(architecture):
    computed = []
    with engine(architecture) as (made, _):
        made.blocks[0].register_forward_pre_hook(
            lambda m, args, kwargs: computed.append(args[0].shape[1]), with_kwargs=True
        )
        inputs = batch(4)
        generate(made, plan((3,)), Fixed(), **inputs, min_new_tokens=6, do_sample=False)
    assert computed == [inputs["input_ids"].shape[1], 1, 1, 1, 1, 1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_scores_are_those_of_the_last_prompt_token_whatever_the_padding(architecture):
    active = plan((2, 3))
    with engine(architecture) as (made, bare):
        alone = []
        for i in range(4):
            ids = batch(4)["input_ids"][i][batch(4)["attention_mask"][i].bool()][None]
            states = bare(input_ids=ids, output_hidden_states=True).hidden_states
            alone.append([float(states[p.layer][0, -1] @ torch.from_numpy(p.weights)) for p in active.probes])
        for side in ("left", "right"):
            evaluator = Fixed()
            generate(made, active, evaluator, **batch(4, side), do_sample=False)
            found = torch.tensor([evaluator.readings[i] for i in range(4)])
            assert torch.allclose(found, torch.tensor(alone), rtol=1e-4, atol=1e-4), side


def test_check_reads_the_same_scores_as_generate():
    active = plan((1, 3))
    with engine("gpt2") as (made, _):
        prompts = [made.render([message]) for message in _messages()]
        checked, generated = Fixed(), Fixed()
        made.check(prompts, active, checked, lambda event: None)
        ids, mask = made.batch(prompts)
        generate(made, active, generated, input_ids=ids, attention_mask=mask, do_sample=False)
    for row in range(len(prompts)):
        assert checked.readings[row] == pytest.approx(generated.readings[row], rel=1e-4, abs=1e-4)


def _messages():
    return [Message("user", text) for text in ("short", "a much longer message than that", "x")]


def test_check_computes_no_layer_above_the_last_one_read():
    calls = []
    with engine() as (made, _):
        for i, block in enumerate(made.blocks):
            block.register_forward_pre_hook(lambda m, args, i=i: calls.append(i + 1))
        made.check([made.render(_messages()[:1])], plan((2,)), Fixed(), lambda event: None)
    assert calls == [1, 2]


class Forbid(LogitsProcessor):
    def __call__(self, ids, scores):
        scores[:, 60:70] = -torch.inf
        return scores


class StopAt(StoppingCriteria):
    def __call__(self, ids, scores, **kwargs):
        return torch.full((len(ids),), ids.shape[1] > 25)


def asked(run):
    """How often the host asks for values."""
    with waits() as found:
        run()
    return found.count


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_device_is_waited_for_once_for_the_scores(monkeypatch, side):
    on_a_device(monkeypatch)
    once = {**batch(2, side), "max_new_tokens": 1, "pad_token_id": 0}
    with engine() as (made, bare):
        without = asked(lambda: bare.generate(**once))
        guarded = asked(lambda: generate(made, plan((2, 3)), Fixed(), **once))
    assert guarded == without + 1


def test_a_check_on_a_device_waits_for_the_scores_alone():
    prompts = [
        Prompt(tuple(TOKENIZER(text)["input_ids"])) for text in ("some words", "a few more words here")
    ]
    with engine() as (made, bare):
        inputs = dict(zip(("input_ids", "attention_mask"), made.batch(prompts), strict=True))
        with torch.inference_mode():
            without = asked(lambda: bare(**inputs, use_cache=False))
        check = asked(lambda: made.check(prompts, plan((2, 3)), Fixed(), lambda event: None))
    assert check == without + 1


LAYERS = {"read and steered": ((2, 3), (2, 3)), "steered above": ((2, 3), (4,)), "steered only": ((), (2,))}


@in_pairs(executors=EXECUTORS, layers=LAYERS, count=[1, 4], side=["left", "right"])
def test_prompts_on_a_device_are_read_and_steered_as_on_the_host(monkeypatch, layers, count, side):
    read, steered = layers
    spec, inputs = steering("ablate", steered), batch(count, side)
    padded = side == "right" and count > 1
    apply, widths, evaluators, outputs = BatchSteering.apply, [], [], []

    def seen(self, layer, hidden, weight=None):
        widths.append((hidden.shape[1] > 1, weight is not None))
        apply(self, layer, hidden, weight)

    monkeypatch.setattr(BatchSteering, "apply", seen)
    with engine() as (made, _):
        for known in (True, False):
            on_a_device(monkeypatch, not known)
            evaluators.append(Fixed(("steer",) * count, (spec,)))
            found = generate(made, plan(read, spec), evaluators[-1], **inputs, do_sample=False)
            outputs.append(found.output)
    assert torch.equal(*outputs)
    assert evaluators[0].readings == evaluators[1].readings
    again = read and steered[0] < read[-1]
    assert set(widths) == ({(True, True), (False, False)} if padded and not again else {(False, False)})


def calls(run):
    """How many functions are called, Python's and C's, in this thread."""
    found = 0

    def count(frame, event, argument):
        nonlocal found
        found += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(before)
    return found


def calls_of_a_step(generate_tokens):
    generate_tokens(12)  # what happens only once

    def fewest(count):  # now and then the interpreter calls something of its own
        return min(calls(lambda: generate_tokens(count)) for _ in range(3))

    return (fewest(12) - fewest(4)) / 8


def test_an_allowed_decoding_step_only_adds_what_tells_whose_it_is():
    inputs, active = batch(1), plan((2, 3))

    def tokens(count):
        return {**inputs, "do_sample": False, "min_new_tokens": count, "max_new_tokens": count}

    with engine() as (made, bare):
        without = calls_of_a_step(lambda n: bare.generate(**tokens(n), pad_token_id=0))
        guarded = calls_of_a_step(lambda n: generate(made, active, Fixed(), **tokens(n)))
    assert without > 500
    assert 0 < guarded - without <= 13


def test_logits_processors_and_stopping_criteria_work_as_before():
    extra = {
        "logits_processor": LogitsProcessorList([Forbid()]),
        "stopping_criteria": StoppingCriteriaList([StopAt()]),
    }
    with engine() as (made, bare):
        expected, output = both(
            made, bare, plan(), Fixed(), **batch(2), **extra, max_new_tokens=20, do_sample=False
        )
    assert torch.equal(output, expected)


def test_streamers_print_the_same_text(capsys):
    inputs = batch(1)
    with engine() as (made, bare):
        streamer = TextStreamer(TOKENIZER, skip_prompt=True)
        bare.generate(**inputs, streamer=streamer, max_new_tokens=8, pad_token_id=0, do_sample=False)
        expected = capsys.readouterr().out
        streamer = TextStreamer(TOKENIZER, skip_prompt=True)
        generate(made, plan(), Fixed(), **inputs, streamer=streamer, max_new_tokens=8, do_sample=False)
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("whole", [True, False], ids=["all ids", "new ids only"])
def test_a_cache_of_an_earlier_turn_is_used(whole):
    def second_turn(model, run):
        first = model.generate(
            **batch(1), max_new_tokens=4, pad_token_id=0, do_sample=False, return_dict_in_generate=True
        )
        more = torch.cat([first.sequences, batch(1)["input_ids"]], dim=1)
        ids = more if whole else more[:, first.sequences.shape[1] - 1 :]
        mask = torch.ones(1, more.shape[1], dtype=torch.long)
        return run(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=6,
            pad_token_id=0,
            do_sample=False,
            **{CACHE: first[CACHE]},
        )

    active = plan()
    with engine() as (made, bare):
        expected = second_turn(bare, bare.generate)
        output = second_turn(made.model, lambda **kwargs: generate(made, active, Fixed(), **kwargs).output)
    assert torch.equal(output, expected)


def test_generate_without_a_cache_is_the_same():
    with engine() as (made, bare):
        expected, output = both(made, bare, plan(), Fixed(), **batch(3), use_cache=False, do_sample=False)
    assert torch.equal(output, expected)


def test_a_static_cache_is_the_same():
    with engine() as (made, bare):
        kwargs = {"cache_implementation": "static", "disable_compile": True, "do_sample": False}
        expected, output = both(made, bare, plan(), Fixed(), **batch(3), **kwargs)
    assert torch.equal(output, expected)


def test_closing_gives_every_module_its_own_forward_back():
    with engine() as (made, bare):
        generate(made, plan((1, 2)), Fixed(), **batch(2))
        model = made.model
    assert not any(
        {"forward", "_prefill", "__nnsight__", "prepare_inputs_for_generation"} & set(m.__dict__)
        for m in model.modules()
    )
    assert list(model.state_dict()) == list(bare.state_dict())
    assert torch.equal(model(**batch(2)).logits, bare(**batch(2)).logits)
    assert not hasattr(object(), "save")


def touched_by_a_look(module):
    return "forward" in module.__dict__ or module._forward_hooks


def test_only_the_layers_that_are_read_are_instrumented_and_only_while_they_are():
    seen = []

    def touched(*_):
        modules = dict(made.model.named_modules()).items()
        seen.append([name for name, m in modules if "layers" in name and touched_by_a_look(m)])

    with engine() as (made, _):
        blocks = {id(module): name for name, module in made.model.named_modules()}
        made.blocks[0].register_forward_pre_hook(touched)
        generate(made, plan((2,)), Fixed(), **batch(1), min_new_tokens=6)
        touched()
        read = blocks[id(made.blocks[1])]
    assert seen == [[read], *[[]] * 6]


def test_a_forward_that_is_replaced_later_is_the_one_that_runs():
    inputs, active = {**batch(2), "do_sample": False}, plan((2, 3))
    with engine() as (made, bare):
        before = generate(made, active, Fixed(), **inputs).output
        for block in (made.blocks[1], decoder_blocks(bare)[1]):
            block.forward = lambda *args, own=block.forward, **kwargs: 3 * own(*args, **kwargs)
        evaluator = Fixed()
        expected, output = both(made, bare, active, evaluator, **inputs)
        again = generate(made, active, Fixed(), **inputs).output
    assert torch.equal(output, expected)
    assert torch.equal(again, expected)
    assert not torch.equal(before, expected)


def test_the_built_in_models_allowed_output_is_token_identical():
    import copy

    from guardrail.demo.prompts import TOUR
    from guardrail.engines.transformers.engine import TransformersEngine
    from guardrail.engines.transformers.pretrained import load_pretrained
    from guardrail.types import Probe

    model, tokenizer = load_pretrained("demo", {"dtype": torch.float32})
    bare = copy.deepcopy(model)
    width = model.config.hidden_size
    probes = tuple(Probe(trait="evil", layer=n, weights=random_vector(n, width)) for n in (2, 3))
    active = replace(plan((2, 3)), probes=probes)
    made = TransformersEngine(model, tokenizer)
    texts = [made.render([Message(**turn) for turn in prompt.messages]) for prompt in TOUR]
    for mode, rows in (("greedy", texts), ("sampled", texts[:1])):
        ids, mask = made.batch(rows)
        kwargs = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 24, **MODES[mode]}
        expected, output = both(made, bare, active, Fixed(), **kwargs)
        assert torch.equal(output, expected), mode
    made.close()
