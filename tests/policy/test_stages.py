"""Policies about replies and conversations in the file: thresholds, what a calibration must hold, rates."""

from dataclasses import replace

import numpy as np
import pytest
from worlds import FINGERPRINT, VECTORS, calibration, policies, rule, world

from guardrail.calibration.benign import BenignReplies
from guardrail.calibration.running import highest, lowest
from guardrail.calibration.values import Calibration
from guardrail.errors import CalibrationError, PolicyError
from guardrail.plugins.manager import Plugins
from guardrail.policy.alarms import Drift
from guardrail.policy.loading import load
from guardrail.policy.model import Condition, Conversation, Monitor, Policy, Reference
from guardrail.policy.rates import set_rate
from guardrail.policy.rules import CompiledCondition
from guardrail.policy.stages import Scale, drift_condition, reply_condition, stage_problems
from guardrail.types import Probe, ProbeSite

REPLIES = [np.random.default_rng(i).normal(0.5, 2.0, 30) for i in range(400)]
BENIGN = BenignReplies.of(REPLIES, [("mean", 16), ("max", 4)])
EXTREMES = np.sort([highest(reply, "mean", 16) for reply in REPLIES])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = world(tmp_path_factory.mktemp("world"))
    table = {trait: dict.fromkeys(range(1, 5), BENIGN) for trait in VECTORS}
    replace(calibration(), replies=table).save(path / "replies.json")
    return path


def loaded(folder, *rules, name="replies.json"):
    content = policies(folder, *rules) | {"calibration": str(folder / name)}
    return load(content, FINGERPRINT, Plugins())


def only(folder, **keys):
    return loaded(folder, rule(**{"stage": "response", **keys})).plan.reply_rules[0]


def test_a_response_policy_is_no_rule_about_prompts(folder):
    plan = loaded(folder, rule(id="a"), rule(id="b", stage="response")).plan
    assert ([r.id for r in plan.rules], [r.id for r in plan.reply_rules]) == (["a"], ["b"])
    assert plan.layers == (2,)
    assert len(plan.probes) == len(plan.reply_probes) == 1
    assert [(probe.trait, probe.layer) for probe in plan.reply_probes] == [("evil", 2)]


def test_a_number_counts_deviations_of_single_reply_tokens(folder):
    condition = only(folder, threshold=2.0).conditions[0]
    every = np.concatenate(REPLIES)
    assert condition.raw == pytest.approx(every.mean() + 2 * every.std(ddof=1))
    assert condition.threshold == pytest.approx(2.0)


def test_a_rate_is_the_share_of_benign_replies_that_reach_it_anywhere(folder):
    raw = only(folder, threshold={"fpr": 0.05}).conditions[0].raw
    assert np.mean(raw <= EXTREMES) == pytest.approx(0.05, abs=0.005)


def test_a_percentile_is_one_of_the_extremes(folder):
    assert only(folder, threshold={"percentile": 95}).conditions[0].raw == pytest.approx(
        np.percentile(EXTREMES, 95), rel=1e-4
    )


def test_firing_below_takes_the_other_end(folder):
    condition = only(
        folder, threshold={"fpr": 0.05}, fires="below", monitor={"statistic": "max", "window": 4}
    )
    low = np.asarray([lowest(reply, "max", 4) for reply in REPLIES])
    assert np.mean(low <= condition.conditions[0].raw) == pytest.approx(0.05, abs=0.005)


def test_the_probe_reads_scores(folder):
    plan = loaded(folder, rule(stage="response")).plan
    probe, vector = plan.reply_probes[0], VECTORS["evil"]
    state = np.random.default_rng(0).normal(size=32).astype(np.float32)
    raw = state @ vector.probe[2] + vector.offset[2]
    assert state @ probe.weights + probe.offset == pytest.approx((raw - BENIGN.mean) / BENIGN.sd, rel=1e-5)


@pytest.mark.parametrize("threshold", [2.0, {"fpr": 0.01}, {"percentile": 99}])
def test_without_benign_replies_only_raw_thresholds_work(folder, threshold):
    with pytest.raises(PolicyError, match="benign replies"):
        loaded(folder, rule(stage="response", threshold=threshold), name="calibration.json")
    raw = rule(stage="response", threshold={"raw": 3.0})
    found = loaded(folder, raw, name="calibration.json").plan
    assert found.reply_rules[0].conditions[0].threshold == 3.0
    assert any("false-positive rate is unknown" in warning for warning in found.warnings)


def test_a_statistic_that_was_not_calibrated_is_an_error_that_names_those_that_were(folder):
    with pytest.raises(PolicyError, match=r"under `ema 16`; it has: max 4, mean 16"):
        only(folder, threshold={"fpr": 0.05}, monitor={"statistic": "ema"})
    assert only(folder, threshold=2.0, monitor={"statistic": "ema"}).monitor.key == "ema 16"


def test_how_often_it_is_looked_at_does_not_matter_for_the_calibration(folder):
    keys = {"threshold": {"fpr": 0.05}}
    assert only(folder, **keys, monitor={"every": 1}).conditions == only(folder, **keys).conditions


def test_the_bound_for_the_set_holds_prompts_and_replies(folder):
    both = loaded(
        folder, rule(id="a", threshold={"fpr": 0.01}), rule(id="b", threshold={"fpr": 0.05}, stage="response")
    )
    assert set_rate(both.plan, both.calibration).value == pytest.approx(0.06)


def test_a_scorer_cannot_follow_replies(folder):
    class Shouting:
        name = "shouting"

        def score(self, messages):
            return 0.0

    from guardrail.plugins.hookspecs import hookimpl

    class Plugin:
        @hookimpl
        def guardrail_scorers(self):
            return [Shouting()]

    content = policies(
        folder, {"id": "p", "trait": "shouting", "threshold": 1.0, "action": "block", "stage": "response"}
    )
    with pytest.raises(PolicyError, match="cannot follow replies"):
        load(content, FINGERPRINT, Plugins([Plugin()]))


def conversation(folder, name="replies.json", **keys):
    found = {"id": "p", "trait": "evil", "layer": 2, "action": "block", "conversation": {}} | keys
    return loaded(folder, found, name=name).plan


def test_a_policy_about_conversations_decides_on_prompts_and_reads_replies(folder):
    plan = conversation(folder)
    assert plan.reply_rules == ()
    assert plan.layers == ()
    assert plan.reply_layers == (2,)
    assert plan.drifts["p"].reading == 0
    assert plan.rules[0].conditions[0].threshold == 5.0


def test_its_probe_counts_deviations_of_benign_turns(folder):
    probe, vector = conversation(folder).reply_probes[0], VECTORS["evil"]
    turns = [reply.mean() for reply in REPLIES]
    state = np.random.default_rng(0).normal(size=32).astype(np.float32)
    z = (state @ vector.probe[2] + vector.offset[2] - np.mean(turns)) / np.std(turns, ddof=1)
    assert state @ probe.weights + probe.offset == pytest.approx(z, rel=1e-4)
    below = conversation(folder, fires="below").reply_probes[0]
    assert state @ below.weights + below.offset == pytest.approx(-z, rel=1e-4)


def test_a_reference_stands_in_for_the_calibration(folder):
    reference = {"reference": {"mean": 1.0, "sd": 2.0}}
    probe = conversation(folder, "calibration.json", conversation=reference).reply_probes[0]
    assert probe.weights == pytest.approx(VECTORS["evil"].probe[2] / 2)
    with pytest.raises(PolicyError, match="reference"):
        conversation(folder, "calibration.json")


def test_an_old_calibration_loads_and_keeps_its_hash(folder, tmp_path):
    old = Calibration.load(folder / "calibration.json")
    assert old.replies == {}
    assert '"replies"' not in (folder / "calibration.json").read_text()
    new = Calibration.load(folder / "replies.json")
    assert new.sha256 != old.sha256
    assert new.replies["evil"][2] == BENIGN


@pytest.mark.parametrize(
    "replies", [[np.ones(3)], [np.ones(3), np.ones(3)], [np.arange(3.0), np.asarray([])]]
)
def test_replies_that_say_nothing_are_no_calibration(replies):
    with pytest.raises(CalibrationError):
        BenignReplies.of(replies, [("mean", 2)])


def test_explaining_says_how_replies_are_followed(folder):
    from guardrail.cli.policy import _explained, _followed

    found = loaded(
        folder,
        rule(id="a", stage="response", threshold={"fpr": 0.05}, monitor={"every": 2}),
        {"id": "b", "trait": "evil", "layer": 2, "action": "block", "conversation": {"k": 0.25}},
    )
    prompt, reply = _explained(found)["policies"]
    assert (prompt["id"], prompt["stage"], prompt["conversation"]["k"], prompt["fpr"]) == (
        "b",
        "prompt",
        0.25,
        None,
    )
    assert (reply["stage"], reply["monitor"]["every"], reply["fpr"].value) == ("response", 2, 0.05)
    assert "checked every 2" in _followed(found.plan.reply_rules[0])
    assert "cusum, k 0.25" in _followed(found.plan.rules[0])


def test_a_scale_is_folded_into_the_probe():
    probe = Probe(trait="vice", layer=3, weights=np.asarray([4, 8], np.float32), offset=6.0)
    folded = Scale(mean=2.0, sd=4.0).folded(probe)
    assert (folded.trait, folded.layer, folded.offset) == ("vice", 3, 1.0)
    assert folded.weights.tolist() == [1.0, 2.0]
    assert folded.weights.dtype == np.float32
    assert Scale(mean=2.0, sd=4.0).score(10.0) == 2.0


def test_a_scale_is_folded_into_every_site_of_a_sum():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 8)).astype(np.float32)
    early = ProbeSite(layer=1, position="tool_mean", weights=weights[0], absent=-0.5, normalised=True)
    probe = Probe(
        trait="vice", layer=3, weights=weights[1], offset=6.0, position="user_mean", earlier=(early,)
    )
    states = {site.place: rng.normal(size=(4, 8)).astype(np.float32) for site in probe.sites}
    states[1, "tool_mean"][2] = np.nan
    scale = Scale(mean=2.0, sd=4.0)
    np.testing.assert_allclose(
        scale.folded(probe).projection(states), scale.score(probe.projection(states)), rtol=1e-5, atol=1e-6
    )


def test_a_probe_of_tool_results_alone_scores_the_benign_mean_without_them():
    probe = Probe(trait="vice", layer=3, weights=np.ones(8, np.float32), offset=6.0, position="tool_mean")
    states = {(3, "tool_mean"): np.full((1, 8), np.nan, np.float32)}
    assert Scale(mean=2.0, sd=4.0).folded(probe).projection(states).tolist() == [0.0]


@pytest.mark.parametrize("scale", [Scale(mean=-1e39), Scale(sd=1e-39)])
def test_a_scale_that_float32_cannot_hold_is_an_error_of_the_calibration(scale):
    probe = Probe(trait="vice", layer=3, weights=np.array([4.0, 8.0], np.float32))
    with pytest.raises(CalibrationError, match="`vice` at layer 3 scales it out of range"):
        scale.folded(probe)
    site = ProbeSite(layer=2, position="user_mean", weights=np.array([4.0, 8.0], np.float32))
    with pytest.raises(CalibrationError, match="scales it out of range"):
        Scale(sd=1e-39).folded(replace(probe, weights=probe.weights * 1e-39, earlier=(site,)))


FEWER_BELOW = replace(
    BENIGN, lowest={"mean 16": BenignReplies.of(REPLIES[:99], [("mean", 16)]).lowest["mean 16"]}
)
"""Replies in which the lower extremes are of 99 replies, so that the sides can be told apart."""


@pytest.mark.parametrize(("fires", "n"), [("above", 400), ("below", 99)])
def test_a_reply_condition_says_what_it_was_calibrated_for(fires, n):
    condition = Condition(trait="evil", threshold={"fpr": 0.05}, fires=fires)
    found, scale = reply_condition(condition, 3, Monitor(), FEWER_BELOW, 7)
    tail = ("upper", FEWER_BELOW.highest) if fires == "above" else ("lower", FEWER_BELOW.lowest)
    raw = tail[1]["mean 16"].conformal(0.05, tail[0])
    assert found == CompiledCondition(
        trait="evil",
        layer=3,
        reading=7,
        threshold=(raw - BENIGN.mean) / BENIGN.sd,
        raw=raw,
        fires=fires,
        fpr=0.05,
        n=n,
    )
    assert scale == Scale(BENIGN.mean, BENIGN.sd)


def test_a_reply_condition_that_is_no_rate_counts_no_replies():
    found, _ = reply_condition(Condition(trait="evil", threshold=2.0), 3, Monitor(), BENIGN, 7)
    assert (found.fpr, found.n, found.fires) == (None, None, "above")
    raw, scale = reply_condition(Condition(trait="evil", threshold={"raw": 2.0}), 3, Monitor(), None, 7)
    assert (raw.threshold, raw.raw, raw.n, scale) == (2.0, 2.0, None, Scale())


@pytest.mark.parametrize(
    ("given", "alarm"),
    [
        (Conversation(k=0.25, h=4.0), 4.0),
        (Conversation(statistic="ewma", weight=0.4, limit=2.5), 2.5),
    ],
)
def test_an_alarm_over_conversations_keeps_its_numbers(given, alarm):
    condition = Condition(trait="evil", threshold=alarm)
    found, scale = drift_condition(condition, 3, given, BENIGN, 7)
    drift = Drift(statistic=given.statistic, reading=7, k=given.k, weight=given.weight)
    assert found == CompiledCondition(
        trait="evil", layer=3, reading=None, threshold=alarm, raw=alarm, drift=drift
    )
    assert scale == Scale(BENIGN.turn_mean, BENIGN.turn_sd)


def test_a_reference_wins_over_the_calibration():
    given = Conversation(reference=Reference(mean=1.0, sd=2.0))
    above = Condition(trait="evil", threshold=5.0)
    assert drift_condition(above, 3, given, BENIGN, 0)[1] == Scale(1.0, 2.0)
    below = above.model_copy(update={"fires": "below"})
    assert drift_condition(below, 3, given, BENIGN, 0)[1] == Scale(1.0, -2.0)


def made(**keys):
    return Policy.model_validate({"id": "p", "trait": "evil", "threshold": 1.0, "action": "block"} | keys)


@pytest.mark.parametrize(
    ("policy", "keys"),
    [
        (made(), []),
        (made(on_timeout="block", timeout_ms=5, on_truncate="error"), []),
        (made(monitor={}), [("monitor",)]),
        (made(stage="response", monitor={}), []),
        (
            made(stage="response", on_timeout="block", timeout_ms=5, on_truncate="error"),
            [("on_timeout",), ("timeout_ms",), ("on_truncate",)],
        ),
        (made(stage="response", threshold=None, conversation={}), [("conversation",)]),
    ],
)
def test_keys_of_the_other_stage_are_problems(policy, keys):
    found = stage_problems(policy)
    assert [key for key, _ in found] == keys
    assert all(message for _, message in found)
