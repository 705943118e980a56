"""Following replies in the engine: what is read, that it changes nothing, stopping and steering rows."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from following import ALWAYS, NEVER, Following, following
from pairs import EXECUTORS, in_pairs
from tiny import TOKENIZER, Fixed, batch, engine, generate, plan, steering
from transformers import StoppingCriteria, StoppingCriteriaList

from guardrail.calibration.running import running
from guardrail.engines.transformers.blocks import decoder_blocks
from guardrail.errors import UnsupportedGeneration
from guardrail.testing import ARCHITECTURES

pytestmark = pytest.mark.usefixtures("no_grad", "executors")

EXACT = {"min_new_tokens": 8, "max_new_tokens": 8, "do_sample": False}
KINDS = [("mean", 3), ("max", 2), ("ema", 5)]


def run(made, active, **kwargs):
    evaluator = Following(plan=active, **kwargs.pop("evaluator", {}))
    return generate(made, active, evaluator, **{**EXACT, **kwargs}), evaluator


def plain(bare, **kwargs):
    return bare.generate(**{"pad_token_id": 0, **EXACT, **kwargs})


def projections(bare, sequences, mask, active, width):
    """[rows, tokens, probes] of the reply tokens that are fed back, from a plain forward pass."""
    whole = torch.cat([mask, torch.ones(len(mask), sequences.shape[1] - width, dtype=mask.dtype)], 1)
    positions = (whole.cumsum(-1) - 1).clamp(min=0)
    states = bare(
        input_ids=sequences, attention_mask=whole, position_ids=positions, output_hidden_states=True
    ).hidden_states
    probes = active.reply_probes
    rows = [states[p.layer][:, width:-1] @ torch.from_numpy(p.weights) + p.offset for p in probes]
    return torch.stack(rows, -1).numpy()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gpt_neox"])
def test_what_is_read_is_the_running_statistic_of_the_generated_tokens(architecture):
    specs = [
        {"monitor": {"statistic": kind, "window": window}, "layer": layer, "fires": fires}
        | {"threshold": NEVER if fires == "above" else -NEVER}
        for (kind, window), layer, fires in zip(KINDS, (3, 1, 3), ("above", "below", "above"), strict=True)
    ]
    active, inputs = following(*specs), batch(4)
    width = inputs["input_ids"].shape[1]
    with engine(architecture) as (made, bare):
        result, evaluator = run(made, active, **inputs)
        found = projections(bare, result.output, inputs["attention_mask"], active, width)
    for row in range(4):
        (observed,) = evaluator.observed[row]
        assert (observed.tokens, observed.fired) == (7, (None, None, None))
        for i, (kind, window) in enumerate(KINDS):
            sign = -1 if specs[i]["fires"] == "below" else 1
            extreme = sign * running(sign * found[row, :, i], kind, window).max()
            assert observed.values[i] == pytest.approx(extreme, rel=1e-3, abs=1e-3)


MODES = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "top_k": 0},
    "without a cache": {"do_sample": False, "use_cache": False},
    "static cache": {"do_sample": False, "cache_implementation": "static", "disable_compile": True},
}


BATCHES = {"one": (1, "left"), "padded on the left": (4, "left"), "padded on the right": (4, "right")}


@in_pairs(executors=EXECUTORS, architecture=ARCHITECTURES, rows=BATCHES, mode=["greedy", "sampled"])
def test_a_policy_that_never_fires_changes_no_token(architecture, rows, mode):
    active = following({}, {"layer": 1, "monitor": {"statistic": "ema", "every": 3}})
    with engine(architecture) as (made, bare):
        torch.manual_seed(5)
        expected = plain(bare, **{**batch(*rows), **MODES[mode]})
        torch.manual_seed(5)
        result, _ = run(made, active, **batch(*rows), **MODES[mode])
    assert torch.equal(result.output, expected)
    assert not any(f.decision.stops for f in result.replies.values())


@pytest.mark.parametrize("mode", ["without a cache", "static cache"])
def test_caches_make_no_difference(mode):
    with engine() as (made, bare):
        expected = plain(bare, **batch(2), **{**EXACT, **MODES[mode]})
        result, evaluator = run(made, following({}), **batch(2), **MODES[mode])
    assert torch.equal(result.output, expected)
    assert evaluator.observed[0][0].tokens == 7


def test_a_closed_gate_changes_no_token():
    gated = {"steering": steering("add", (1, 2, 3, 4), scale=30.0)}
    with engine() as (made, bare):
        result, _ = run(made, following(gated), **batch(4))
        assert torch.equal(result.output, plain(bare, **batch(4)))
    assert [f.steered_passes for f in result.replies.values()] == [0, 0, 0, 0]


def test_with_prompt_policies_only_nothing_looks_into_decoding(monkeypatch):
    with engine() as (made, bare):
        for name in ("steer", "begin"):
            monkeypatch.setattr(
                type(made.instruments.decoding), name, lambda *args: pytest.fail("decoding was seen")
            )
        assert torch.equal(
            generate(made, plan((3,)), Fixed(), **batch(2), **EXACT).output, plain(bare, **batch(2))
        )
        # a response policy that follows no row
        result, _ = run(made, following({}), **batch(2), evaluator={"about": ()})
        assert torch.equal(result.output, plain(bare, **batch(2)))
        assert result.replies == {}


@pytest.mark.parametrize("every", [1, 3, 5])
def test_a_reply_stops_at_the_first_look_after_it_fired(every):
    active = following({"threshold": ALWAYS, "monitor": {"every": every}})
    with engine() as (made, _):
        result, _ = run(made, active, **batch(1))
    followed = result.replies[0]
    assert (followed.decision.action, followed.decision.token, followed.kept) == ("block", 1, every)
    assert result.output.shape[1] - batch(1)["input_ids"].shape[1] == every + 1, "it went on generating"


def test_what_fires_after_the_last_look_is_found_at_the_end():
    active = following({"threshold": ALWAYS, "monitor": {"every": 100}})
    with engine() as (made, _):
        result, _ = run(made, active, **batch(2))
    assert [f.decision.action for f in result.replies.values()] == ["block", "block"]
    assert [f.kept for f in result.replies.values()] == [8, 8]


def threshold_between(made, active, inputs):
    """A threshold that one row's reply reaches and the others' do not, and that row."""
    _, evaluator = run(made, active, **inputs)
    values = np.asarray([evaluator.observed[row][-1].values[0] for row in range(4)])
    order = np.argsort(values)
    return float(values[order[-2:]].mean()), int(order[-1])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral"])
def test_one_row_is_stopped_and_the_others_are_what_they_were(architecture):
    inputs = batch(4)
    with engine(architecture) as (made, bare):
        limit, row = threshold_between(made, following({}), inputs)
        result, _ = run(made, following({"threshold": limit}), **inputs)
        expected = plain(bare, **inputs)
    others = [i for i in range(4) if i != row]
    assert torch.equal(result.output[others], expected[others])
    assert [f.decision.action == "block" for f in result.replies.values()] == [i == row for i in range(4)]
    kept = result.replies[row].kept
    width = inputs["input_ids"].shape[1]
    assert torch.equal(result.output[row, : width + kept], expected[row, : width + kept])
    assert set(result.output[row, width + kept + 1 :].tolist()) <= {0}, "the row is padded from there on"


def test_rows_that_no_policy_follows_go_on():
    with engine() as (made, bare):
        result, _ = run(made, following({"threshold": ALWAYS}), **batch(4), evaluator={"about": (1,)})
        expected = plain(bare, **batch(4))
    assert torch.equal(result.output[[0, 2, 3]], expected[[0, 2, 3]])
    assert result.replies[0].decision is None
    assert result.replies[1].decision.stops


class EndAt(StoppingCriteria):
    """Ends row 0 after two tokens, whatever they are."""

    def __init__(self, width):
        self.width = width

    def __call__(self, ids, scores, **kwargs):
        done = torch.zeros(len(ids), dtype=torch.bool)
        done[0] = ids.shape[1] >= self.width + 2
        return done


def test_padding_after_a_row_has_ended_is_not_read():
    inputs = batch(4)
    width = inputs["input_ids"].shape[1]
    active = following({"monitor": {"statistic": "max", "window": 100}})
    ended = StoppingCriteriaList([EndAt(width)])
    with engine() as (made, bare):
        kwargs = {"min_new_tokens": None, "eos_token_id": 2, "stopping_criteria": ended}
        result, evaluator = run(made, active, **inputs, **kwargs)
        found = projections(bare, result.output, inputs["attention_mask"], active, width)
    assert (result.output[0, width + 2 :] == 0).all()
    assert evaluator.observed[0][-1].values[0] == pytest.approx(found[0, :2, 0].max(), rel=1e-3)
    assert evaluator.observed[1][-1].values[0] == pytest.approx(found[1, :, 0].max(), rel=1e-3)


def hooked(bare, spec, first, width):
    """The reference: from reply token `first` on, hooks add the direction at the newest position."""
    model, passes = copy.deepcopy(bare), [0]

    def hook(index):
        def change(module, args, output):
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            if index == 0:
                passes[0] += 1
            # pass 1 is the prompt's; pass t + 1 reads token t. Layers below the read one are a pass late
            late = spec.layers[index] < 3
            if passes[0] - 1 >= first + late:
                hidden[:, -1] += torch.from_numpy(spec.directions[index])
            return hidden

        return change

    for index, layer in enumerate(spec.layers):
        decoder_blocks(model)[layer - 1].register_forward_hook(hook(index))
    return model


@pytest.mark.parametrize("layers", [(3,), (4,), (1, 4)])
def test_a_gate_opens_when_the_rule_fires_and_stays_open(layers):
    spec, inputs = steering("add", layers, scale=5.0), batch(1)
    with engine() as (made, bare):
        width = inputs["input_ids"].shape[1]
        sequences = plain(bare, **inputs)
        found = running(
            projections(bare, sequences, inputs["attention_mask"], following({}), width)[0, :, 0], "max", 1
        )
        first = int(np.argmax(found > found[0])) + 1 or 1
        limit = float((found[first - 1] + found[: first - 1].max(initial=found[first - 1] - 1)) / 2)
        active = following(
            {"threshold": limit, "steering": spec, "monitor": {"statistic": "max", "window": 1, "every": 4}}
        )
        result, evaluator = run(made, active, **inputs)
        expected = plain(hooked(bare, spec, first, width), **inputs)
    assert torch.equal(result.output, expected)
    assert result.replies[0].decision.action == "steer"
    assert result.replies[0].decision.token == first
    assert len(evaluator.observed[0]) == 1, "the host looked before the end"
    assert result.replies[0].steered_passes == 8 - first - (layers[-1] < 3)


def test_a_shadow_is_recorded_and_does_nothing():
    with engine() as (made, bare):
        result, _ = run(made, following({"threshold": ALWAYS, "mode": "shadow"}), **batch(2))
        assert torch.equal(result.output, plain(bare, **batch(2)))
    decision = result.replies[0].decision
    assert (decision.action, decision.would_action, decision.fired) == ("allow", "block", ("r0",))


def test_stopping_and_steering_policies_work_side_by_side():
    specs = (
        {"threshold": ALWAYS, "steering": steering("add", (4,))},
        {"threshold": ALWAYS, "monitor": {"every": 4}},
    )
    with engine() as (made, _):
        result, _ = run(made, following(*specs), **batch(1))
    followed = result.replies[0]
    assert (followed.decision.action, followed.kept) == ("block", 4)
    assert followed.decision.fired == ("r0", "r1")
    assert followed.steered_passes == 4


def test_a_prompt_that_is_steered_is_followed_as_well():
    spec = steering("add", (4,))
    active = replace(following({"threshold": ALWAYS, "monitor": {"every": 3}}), rules=plan((2,), spec).rules)
    with engine() as (made, _):
        evaluator = Following(("steer",), (spec,), plan=active)
        result = generate(made, active, evaluator, **batch(1), **EXACT)
    assert result.replies[0].kept == 3
    assert result.passes == {0: 4}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("on_error", ["block", "allow"])
def test_what_cannot_be_compared_is_an_error_and_never_a_pass(value, on_error):
    base = following({})
    rule = replace(
        base.reply_rules[0], settings=base.reply_rules[0].settings.model_copy(update={"on_error": on_error})
    )
    probe = replace(base.reply_probes[0], offset=value)
    active = replace(base, reply_rules=(rule,), reply_probes=(probe,))
    with engine() as (made, bare):
        result, _ = run(made, active, **batch(2))
        expected = plain(bare, **batch(2))
    decision = result.replies[0].decision
    assert (decision.status, decision.action) == ("error", on_error)
    assert "not finite" in decision.error
    if on_error == "allow":
        assert decision.fail_open
        assert torch.equal(result.output, expected)
    else:
        assert result.replies[0].kept == 1


@pytest.mark.parametrize("on_error", ["block", "allow"])
def test_a_monitor_that_breaks_follows_on_error(monkeypatch, on_error):
    from guardrail.engines.transformers import running as statistics

    monkeypatch.setitem(statistics.KINDS, "mean", lambda window, like: 1 / 0)
    base = following({})
    rule = replace(
        base.reply_rules[0], settings=base.reply_rules[0].settings.model_copy(update={"on_error": on_error})
    )
    with engine() as (made, bare):
        result, _ = run(made, replace(base, reply_rules=(rule,)), **batch(2))
        expected = plain(bare, **batch(2))
    decision = result.replies[0].decision
    assert (decision.status, decision.action) == ("error", on_error)
    assert "ZeroDivisionError" in decision.error
    assert torch.equal(result.output, expected) == (on_error == "allow")


def test_all_of_needs_one_token_at_which_all_hold_and_any_of_one_that_does():
    base = following({"layer": 2}, {"layer": 3})
    pair = tuple(rule.conditions[0] for rule in base.reply_rules)

    def joined(every, *limits):
        conditions = tuple(replace(c, threshold=limit) for c, limit in zip(pair, limits, strict=True))
        rule = replace(base.reply_rules[0], conditions=conditions, require_all=every)
        return replace(base, reply_rules=(rule,))

    with engine() as (made, _):
        for every, limits, fires in (
            (True, (ALWAYS, ALWAYS), True),
            (True, (ALWAYS, NEVER), False),
            (False, (ALWAYS, NEVER), True),
            (False, (NEVER, NEVER), False),
        ):
            result, _ = run(made, joined(every, *limits), **batch(2))
            assert result.replies[0].decision.stops == fires, (every, limits)


def test_a_reply_of_one_token_was_not_evaluated():
    with engine() as (made, _):
        result, _ = run(made, following({}), **batch(2), max_new_tokens=1, min_new_tokens=None)
    assert {f.decision.status for f in result.replies.values()} == {"not_evaluated"}


@pytest.mark.parametrize("kwargs", [{"num_beams": 2}, {"num_return_sequences": 2, "do_sample": True}])
def test_beams_and_several_replies_are_refused_before_any_work(kwargs):
    with engine() as (made, _):
        with pytest.raises(UnsupportedGeneration, match="response policies"):
            run(made, following({}), **batch(1), **kwargs)
        run(made, following({}), **batch(1), **kwargs, evaluator={"about": ()})


def test_steering_without_a_cache_is_refused():
    with engine() as (made, _), pytest.raises(UnsupportedGeneration, match="use_cache"):
        run(made, following({"steering": steering("add", (4,))}), **batch(1), use_cache=False)


def test_the_model_is_as_it_was_after_a_reply_was_stopped():
    with engine() as (made, bare):
        run(made, following({"threshold": ALWAYS}), **batch(2))
        assert torch.equal(made.model.generate(**batch(2), **EXACT, pad_token_id=0), plain(bare, **batch(2)))
        made.close()
        assert all("forward" not in module.__dict__ for module in made.model.modules())
    assert TOKENIZER.padding_side == "left"
