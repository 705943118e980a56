"""Scores on a device that decide on nothing but steering: the host does not wait for them in mid-prompt."""

from dataclasses import replace

import pytest
import tiny
import torch
from pairs import EXECUTORS, in_pairs
from tiny import CACHE, TOKENIZER, Fixed, batch, engine, generate, guard, plan, policy, steering
from transformers import DynamicCache
from waiting import on_a_device, waits

from guardrail.bench.plans import PlanEvaluator
from guardrail.engines.transformers.engine import TransformersEngine
from guardrail.engines.transformers.readback import Readback
from guardrail.errors import PromptError, SteeringError
from guardrail.pipeline.evaluator import BatchEvaluator
from guardrail.plugins.hookspecs import hookimpl
from guardrail.testing import tiny_model

pytestmark = pytest.mark.usefixtures("executors")

READ = (2, 3)
PLACES = {"in the same pass": (3, 4), "above": (4,), "below": (1, 4), "every layer": (1, 2, 3, 4)}


def steers(layers, threshold, operator="add"):
    """A plan whose only rule steers if the score at layer 3 reaches a threshold."""
    active = plan(READ, steering(operator, layers, limit=-1.0))
    (rule,) = active.rules
    condition = replace(rule.conditions[1], threshold=threshold)
    rule = replace(rule, action="steer", conditions=(condition,))
    return replace(active, rules=(replace(rule, steering=rule.steering.renamed(rule.id)),))


def between(made, inputs):
    """A threshold that about half of the rows reach."""
    evaluator = Fixed()
    generate(made, plan(READ), evaluator, **inputs)
    scores = sorted(reading[1] for reading in evaluator.readings.values())
    return scores[len(scores) // 2] - 1e-3


MODES = {"greedy": {"do_sample": False}, "beams": {"num_beams": 2, "do_sample": False}}


@in_pairs(
    executors=EXECUTORS, layers=PLACES, operator=["add", "ablate", "cap"], side=["left", "right"], mode=MODES
)
def test_replies_and_decisions_are_those_of_the_host(monkeypatch, operator, layers, side, mode):
    inputs, found = batch(4, side), []
    with engine() as (made, _):
        active = steers(layers, between(made, batch(4, side)), operator)
        for elsewhere in (False, True):
            on_a_device(monkeypatch, elsewhere)
            found.append(generate(made, active, PlanEvaluator(active), **inputs))
    host, device = found
    assert torch.equal(host.output, device.output)
    assert [d.action for d in host.decisions] == [d.action for d in device.decisions]
    assert {d.action for d in host.decisions} == {"allow", "steer"}
    assert host.passes == device.passes


def test_rows_that_are_not_steered_are_the_bare_models(monkeypatch):
    inputs = batch(4)
    on_a_device(monkeypatch)
    with engine() as (made, bare):
        expected = bare.generate(**inputs, max_new_tokens=6, pad_token_id=0, do_sample=False)
        active = steers((3, 4), 1e6)
        result = generate(made, active, PlanEvaluator(active), **inputs, do_sample=False)
    assert torch.equal(result.output, expected)


def questions(made, active, evaluator, **inputs):
    """How often the host asked by the end of the last block, and in all."""
    counted = []
    handle = made.blocks[-1].register_forward_hook(lambda *_: counted.append(found.count))

    def run():
        return generate(made, active, evaluator, **inputs, max_new_tokens=1)

    with waits() as found:
        run()
    handle.remove()
    return counted[0], found.count


@pytest.mark.parametrize("threshold", [1e6, -1e6], ids=["allowed", "steered"])
@pytest.mark.parametrize("layers", [(3, 4), (1, 4)], ids=["above", "below"])
def test_the_host_does_not_wait_before_the_prompts_last_block_has_run(monkeypatch, threshold, layers):
    inputs = batch(2, "right")
    on_a_device(monkeypatch)
    with engine() as (made, _):
        only = steers(layers, threshold)
        never = replace(only.rules[0].conditions[0], threshold=1e9)
        blocks = replace(plan(READ).rules[0], id="blocks", conditions=(never,))
        mixed = replace(only, rules=(*only.rules, blocks))
        early, late = questions(made, only, PlanEvaluator(only), **inputs)
        early_of_mixed, late_of_mixed = questions(made, mixed, PlanEvaluator(mixed), **inputs)
    assert (early_of_mixed - early, late_of_mixed - late) == (1, 0)


@pytest.fixture
def ahead(executors):
    made = TransformersEngine(tiny_model(), TOKENIZER, None, None, *tiny.EXECUTORS, ahead=True)
    yield made
    made.close()


@pytest.mark.parametrize(("arrives", "blocks"), [(True, [1, 2, 3]), (False, [1, 2, 3, 4])])
def test_ahead_of_the_scores_a_pass_goes_on_until_they_have_arrived(monkeypatch, ahead, arrives, blocks):
    on_a_device(monkeypatch)
    monkeypatch.setattr(Readback, "arrived", arrives)
    ran = []
    for i, block in enumerate(ahead.blocks):
        block.register_forward_pre_hook(lambda *_, i=i: ran.append(i + 1))
    evaluator = Fixed(("block",))
    result = generate(ahead, plan((1, 2)), evaluator, **batch(2))
    assert ran == blocks
    assert (result.kept, [d.action for d in result.decisions]) == ([], ["block"] * 2)
    assert evaluator.readings[0] != evaluator.readings[1]


@pytest.mark.parametrize("arrives", [True, False])
def test_ahead_of_the_scores_allowed_rows_are_the_bare_models(monkeypatch, ahead, arrives):
    on_a_device(monkeypatch)
    monkeypatch.setattr(Readback, "arrived", arrives)
    asked = {**batch(4), "do_sample": False}
    expected = tiny_model().generate(**asked, max_new_tokens=6, pad_token_id=0)
    active = plan((1, 2))
    assert torch.equal(generate(ahead, active, Fixed(("allow",)), **asked).output, expected)
    result = generate(ahead, active, Fixed(("allow", "block")), **asked)
    assert result.kept == [0, 2]
    assert torch.equal(result.output, expected[[0, 2]])


def test_ahead_of_the_scores_nothing_is_asked_before_the_last_block_has_run(monkeypatch, ahead):
    on_a_device(monkeypatch)
    found = []
    for arrives in (True, False):
        monkeypatch.setattr(Readback, "arrived", arrives)
        found.append(questions(ahead, plan((1, 2)), Fixed(("allow",)), **batch(2)))
    (early, total), (late, same) = found
    assert (early - late, total) == (1, same)


def test_what_steers_is_decided_as_without_going_ahead(monkeypatch, ahead):
    on_a_device(monkeypatch)
    monkeypatch.setattr(Readback, "arrived", False)
    inputs = {**batch(4), "do_sample": False}
    with engine() as (made, _):
        active = steers((3, 4), between(made, batch(4)))
        mixed = replace(active, rules=(*active.rules, replace(plan(READ).rules[0], id="b", action="allow")))
        found = [generate(e, mixed, PlanEvaluator(mixed), **inputs) for e in (made, ahead)]
    assert torch.equal(found[0].output, found[1].output)
    assert {d.action for d in found[1].decisions} == {"allow", "steer"}


def test_the_host_does_not_wait_for_shadow_rules_in_mid_prompt(monkeypatch):
    on_a_device(monkeypatch)
    with engine() as (made, bare):
        base = plan(READ)
        shadow = replace(base, rules=(replace(base.rules[0], mode="shadow"),))
        early, _ = questions(made, shadow, PlanEvaluator(shadow), **batch(2))
        enforced, _ = questions(made, base, PlanEvaluator(base), **batch(2))
        result = generate(made, shadow, PlanEvaluator(shadow), **batch(2), do_sample=False)
        expected = bare.generate(**batch(2), max_new_tokens=6, pad_token_id=0, do_sample=False)
    assert early == enforced - 1
    assert torch.equal(result.output, expected)
    assert len(result.decisions[0].scores) == 2


def test_a_score_that_is_not_a_number_stops_the_row_before_its_first_token(monkeypatch):
    on_a_device(monkeypatch)
    with engine() as (made, _):
        active = steers((3, 4), 0.0)
        broken = replace(active.probes[1], offset=float("nan"))
        active = replace(active, probes=(active.probes[0], broken))
        result = generate(made, active, PlanEvaluator(active), **batch(2))
    assert [(d.status, d.action) for d in result.decisions] == [("error", "block")] * 2
    assert result.kept == []


def test_windowed_caches_are_steered_below_what_is_read_as_on_the_host(monkeypatch):
    inputs, found = {**batch(4), "do_sample": False}, []
    with engine("mistral") as (made, _):
        active = steers((1, 4), between(made, batch(4)), "ablate")
        for elsewhere in (False, True):
            on_a_device(monkeypatch, elsewhere)
            found.append(generate(made, active, PlanEvaluator(active), **inputs))
    assert torch.equal(found[0].output, found[1].output)
    assert found[0].passes == found[1].passes != {}


def test_several_policies_steer_a_row_in_the_order_of_the_file_wherever_they_are_found(monkeypatch):
    inputs, found = {**batch(4), "do_sample": False}, []
    with engine() as (made, _):
        first = steers((3,), between(made, batch(4)), "ablate").rules[0]
        second = steers((3,), -1e6, "add").rules[0]
        second = replace(second, id="second", steering=second.steering.renamed("second"))
        active = replace(plan(READ), rules=(first, second))
        for elsewhere in (False, True):
            on_a_device(monkeypatch, elsewhere)
            found.append(generate(made, active, PlanEvaluator(active), **inputs).output)
        alone = [
            generate(made, active, PlanEvaluator(active), **{k: v[[i]] for k, v in batch(4).items()}).output
            for i in range(4)
        ]
    assert torch.equal(*found)
    width = batch(4)["input_ids"].shape[1]
    assert all(torch.equal(found[0][i, width:], alone[i][0, width:]) for i in range(4))


@pytest.mark.parametrize("fails", ["at the end", "in the middle"])
def test_a_prompt_that_is_not_answered_leaves_the_callers_cache_as_it_was(monkeypatch, fails):
    on_a_device(monkeypatch)
    with engine() as (made, _):
        cache = DynamicCache(config=made.model.config)
        asked = {**batch(1), CACHE: cache}
        active = steers((3, 4), -1e6)
        evaluator = Fixed(("allow",))
        evaluator.by_plan = fails == "at the end"
        if not evaluator.by_plan:
            monkeypatch.setattr(Fixed, "decide", lambda *_: 1 / 0)
        with pytest.raises((SteeringError, ZeroDivisionError)):
            generate(made, active, evaluator, **asked)
    assert [layer.get_seq_length() for layer in cache.layers] in ([], [0] * 4)


def test_an_empty_row_is_found_with_the_scores(monkeypatch):
    on_a_device(monkeypatch)
    inputs = batch(2)
    inputs["attention_mask"][1] = 0
    with engine() as (made, _):
        for active in (steers((3, 4), 0.0), plan(READ)):
            with pytest.raises(PromptError, match="a prompt is empty"):
                generate(made, active, PlanEvaluator(active), **inputs)


def test_a_decision_that_differs_from_the_device_is_an_error(monkeypatch):
    on_a_device(monkeypatch)
    with engine() as (made, _):
        active = steers((3, 4), -1e6)
        evaluator = Fixed(("allow",))
        evaluator.by_plan = True
        with pytest.raises(SteeringError, match="on the device differs from the decision"):
            generate(made, active, evaluator, **batch(1))


class Reviews:
    @hookimpl
    def guardrail_review(self, decision, messages):
        return None


def test_the_host_waits_if_plugins_review_decisions(tmp_path, monkeypatch):
    seen = []

    def look(self):
        seen.append(by_plan(self))
        return seen[-1]

    by_plan = BatchEvaluator.by_plan.fget
    monkeypatch.setattr(BatchEvaluator, "by_plan", property(look))
    on_a_device(monkeypatch)
    rule = policy({"steer": {"operator": "ablate", "layers": [4]}}, {"raw": -1e6})
    for plugins in ([], [Reviews()]):
        with guard(tmp_path, rule, options={"plugins": plugins}) as made:
            assert made.chat("hello world", temperature=0, max_new_tokens=4).decision.action == "steer"
    assert seen == [True, False]
