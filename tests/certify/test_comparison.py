"""What two configurations say about the same prompts, and the verdict on it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from tiny import TOKENIZER, policies, policy, write_vectors
from tiny import guard as guarded

from guardrail import Guard
from guardrail.calibration.values import Calibration
from guardrail.certify.comparison import Limits, certify
from guardrail.certify.criteria import fewest
from guardrail.certify.recording import Prompt, Recording, record
from guardrail.errors import ConfigError
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import load
from guardrail.statistics import intervals
from guardrail.statistics.conformal import observed_fpr
from guardrail.testing import tiny_model

LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz     ?"))


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch):
    """Intervals that are a little rougher, in a fifth of the time."""
    monkeypatch.setattr(intervals, "RESAMPLES", 200)


def texts(seed, count):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(LETTERS, rng.integers(5, 40))) + "." for _ in range(count)]


def prompts(benign=400, others=40):
    found = [Prompt(name=f"benign {i}", messages=t, benign=True) for i, t in enumerate(texts(1, benign))]
    return found + [
        Prompt(name=f"other {i}", messages=t, benign=False) for i, t in enumerate(texts(2, others))
    ]


RULES = (
    policy(threshold={"fpr": 0.05}, id="block"),
    policy(threshold=1.0, id="shadowed", trait="sycophancy", mode="shadow"),
)


def calibrated(folder):
    """Vectors, and a calibration from the tiny model's own scores of other harmless prompts."""
    from guardrail.calibrate.fit import Options, calibrate
    from guardrail.calibrate.sample import read, split
    from guardrail.extract.subject import Subject

    model = tiny_model()
    vectors = write_vectors(folder, model)
    subject = Subject(model, TOKENIZER, rows=64)
    named = [(f"line {i}", text) for i, text in enumerate(texts(3, 400))]
    found = read(named, lambda messages: subject.render(messages).ids, subject.longest)
    options = Options(population="letters", fpr=0.05, conversations=0)
    made = calibrate(subject, vectors, split(found.prompts, 0.0), options)
    replace(made.calibration, certificates=()).save(folder / "calibration.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certify")
    calibrated(folder)
    return folder


def recorded(folder, model, given):
    with Guard(model, TOKENIZER, policies(folder, *RULES, allow_model_mismatch=True)) as guard:
        return record(guard, given, lambda count: None)


@pytest.fixture(scope="module")
def full(folder):
    return recorded(folder, tiny_model(), prompts())


@pytest.fixture(scope="module")
def half(folder):
    return recorded(folder, tiny_model().to(torch.bfloat16), prompts())


@pytest.fixture(scope="module")
def active(folder, full):
    return load(policies(folder, *RULES), full.fingerprint, Plugins())


def moved(recording, change):
    """The recording with other scores; decisions follow from them as they would."""
    found = [replace(one, scores=tuple(change(np.array(one.scores)))) for one in recording.said]
    return replace(recording, said=tuple(found))


def decided(recording, active):
    """The recording with the actions that its scores lead to."""
    rules = [(i, rule.conditions[0].threshold) for i, rule in enumerate(active.plan.rules)]

    def action(one):
        return "block" if any(one.scores[i] >= threshold for i, threshold in rules) else "allow"

    return replace(recording, said=tuple(replace(one, action=action(one)) for one in recording.said))


def test_a_recording_holds_what_the_guard_decides_and_no_text(full, tmp_path):
    assert full.columns == (("evil", 3), ("sycophancy", 3))
    assert (len(full.said), full.benign.sum()) == (440, 400)
    assert full.evaluated.all()
    assert set(full.actions) == {"allow", "block"}, "a shadow's action counts as if it were enforced"
    full.save(tmp_path / "r.json")
    assert Recording.load(tmp_path / "r.json") == full
    assert texts(1, 1)[0] not in (tmp_path / "r.json").read_text()


def test_the_same_configuration_passes(full, active):
    found = certify(full, full, active)
    assert (found.comparison.verdict, found.comparison.reasons) == ("PASS", ())
    assert found.comparison.differences == ()
    assert all(one.slope.value == pytest.approx(1) for one in found.comparison.agreement)


def test_half_precision_agrees_in_scores_and_its_certificate_is_added(full, half, active):
    found = certify(full, half, active, Limits(max_age_days=30.0, max_drift=0.2))
    comparison = found.comparison
    assert comparison.differences == ("dtype float32, now bfloat16",)
    for one in comparison.agreement:
        assert one.slope.value == pytest.approx(1, abs=0.05)
        assert one.offset.value == pytest.approx(0, abs=0.05)
        assert one.rank.low > 0.99
        assert 0 < one.largest < 0.5
    assert comparison.verdict == ("PASS" if comparison.all.share.high <= 0.01 else "RECALIBRATE")
    assert found.calibration is not None
    (certificate,) = [c for c in found.calibration.certificates if c.configuration == half.configuration]
    assert (certificate.max_age_days, certificate.max_drift) == (30.0, 0.2)
    assert certificate.policies == ("block", "shadowed")


def test_a_pass_certifies_the_reference_as_well_and_keeps_the_thresholds(full, active):
    other = replace(full, configuration=replace(full.configuration, attention="other"))
    found = certify(full, other, active).calibration
    assert found.sha256 == active.calibration.sha256
    assert {c.configuration.attention for c in found.certificates} == {
        full.configuration.attention,
        "other",
    }


def test_scores_on_another_scale_need_a_new_calibration_which_restores_the_verdicts(full, half, active):
    shifted = decided(moved(half, lambda scores: 1.5 * scores + 1.0), active)
    found = certify(full, shifted, active)
    comparison = found.comparison
    assert comparison.verdict == "RECALIBRATE"
    assert any("verdicts on benign prompts change" in reason for reason in comparison.reasons)
    assert any("block: fires on" in reason for reason in comparison.reasons)
    assert [one.slope.value for one in comparison.agreement] == pytest.approx([1.5, 1.5], abs=0.1)
    assert [one.offset.value for one in comparison.agreement] == pytest.approx([1.0, 1.0], abs=0.1)
    assert comparison.recalibrated.kept
    assert comparison.recalibrated.changes.share.value < 0.1 < comparison.all.share.value
    assert found.calibration.sha256 != active.calibration.sha256
    assert [c.configuration for c in found.calibration.certificates] == [half.configuration]


def test_the_new_calibration_loads_and_scores_are_standard_under_it(full, half, active, folder, tmp_path):
    shifted = decided(moved(half, lambda scores: 1.5 * scores + 1.0), active)
    certify(full, shifted, active).calibration.save(tmp_path / "new.json")
    calibration = str(tmp_path / "new.json")
    rules = policies(
        folder, *RULES, calibration=calibration, require_certified=True, allow_model_mismatch=True
    )
    loaded = load(rules, half.fingerprint, Plugins(), half.configuration)
    benign = loaded.calibration.probes["evil"][3]
    old = active.calibration.probes["evil"][3]
    known = shifted.scores[shifted.benign, 0] * old.sd + old.mean
    assert benign.mean == pytest.approx(known.mean(), abs=0.2 * benign.sd)
    assert (benign.n, loaded.calibration.evidence.held_out) == (200, 200)


def test_scores_that_rank_prompts_otherwise_fail(full, half, active):
    rng = np.random.default_rng(0)
    noisy = decided(moved(half, lambda scores: scores + rng.normal(size=2)), active)
    found = certify(full, noisy, active)
    assert (found.comparison.verdict, found.calibration) == ("FAIL", None)
    assert any("ranks prompts otherwise" in reason for reason in found.comparison.reasons)
    assert found.comparison.recalibrated is None


def test_a_prompt_that_the_candidate_does_not_evaluate_fails(full, active):
    first, *rest = full.said
    found = certify(full, replace(full, said=(replace(first, status="error"), *rest)), active)
    assert found.comparison.verdict == "FAIL"
    assert found.comparison.reasons[0] == "1 prompts were not evaluated under the candidate"


def test_one_change_in_four_hundred_is_not_shown_to_be_few(full, active):
    first, *rest = full.said
    other = "allow" if first.action == "block" else "block"
    found = certify(full, replace(full, said=(replace(first, action=other), *rest)), active)
    assert found.comparison.benign.changed == 1
    assert any("may be up to 1." in reason for reason in found.comparison.reasons)


def test_a_threshold_that_new_scores_cannot_move_fails(full, half, folder):
    """`raw` thresholds do not follow a calibration."""
    rules = policies(folder, policy(threshold={"raw": 0.0}, id="raw"))
    active = load(rules, full.fingerprint, Plugins())

    def cut(recording):
        said = tuple(replace(one, scores=one.scores[:1]) for one in recording.said)
        return replace(recording, columns=recording.columns[:1], said=said)

    shifted = decided(moved(cut(half), lambda scores: scores + 3.0), active)
    found = certify(cut(full), shifted, active)
    assert found.comparison.verdict == "FAIL"
    assert any("a new calibration does not help: new thresholds" in r for r in found.comparison.reasons)


def test_too_few_benign_prompts_can_show_nothing(full, active):
    few = replace(full, said=full.said[: fewest() - 1])
    with pytest.raises(ConfigError, match="367 distinct benign prompts are too few: with fewer than 368"):
        certify(few, few, active)
    assert observed_fpr(0, fewest())[2] <= 0.01 < observed_fpr(0, fewest() - 1)[2]


def test_recordings_of_other_prompts_or_policies_are_refused(full, active, folder):
    fewer = replace(full, said=full.said[:-3])
    with pytest.raises(ConfigError, match="3 of the 440 prompts of the reference were not recorded"):
        certify(full, fewer, active)
    with pytest.raises(ConfigError, match="the candidate was recorded under other policies"):
        certify(full, replace(full, calibration_sha256="0"), active)
    assert certify(fewer, full, active).comparison.verdict == "PASS", "more prompts do no harm"


def test_the_reference_must_be_certified_itself(full, half, active):
    passed = certify(full, full, active).calibration
    later = replace(active, calibration=passed)
    assert certify(full, full, later).comparison.verdict == "PASS"
    with pytest.raises(ConfigError, match=r"the reference \(transformers, bfloat16, .* is not certified"):
        certify(half, full, later)


def test_policies_about_replies_are_named_as_not_compared(folder, full):
    reply = policy(threshold={"raw": 1.0}, id="reply", stage="response")
    active = load(policies(folder, *RULES, reply), full.fingerprint, Plugins())
    assert certify(full, full, active).comparison.not_compared == ("reply",)


def test_a_policy_that_applies_to_no_prompt_is_named(folder, tmp_path):
    rules = (policy(threshold=1.0, id="all"), policy(threshold=1.0, id="web", when={"tags": ["web"]}))
    rules[1]["trait"] = "sycophancy"
    with guarded(tmp_path, *rules) as guard:
        found = record(guard, prompts(400, 0), lambda count: None)
        assert np.isnan(found.scores[:, 1]).all()
        assert certify(found, found, guard.active).comparison.not_compared == ("web",)


def test_a_prompt_that_cannot_be_read_is_named(tmp_path):
    bad = Prompt(name="a.jsonl:7", messages="x " * 5000, benign=True)
    with (
        guarded(tmp_path, policy(threshold=1.0)) as guard,
        pytest.raises(ConfigError, match=r"a\.jsonl:7: "),
    ):
        record(guard, [*prompts(3, 0), bad], lambda count: None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "not a recording"),
        ('{"format": "guardrail-recording", "version": 2}', "version 2 is not supported"),
        ('{"format": "guardrail-recording", "version": 1}', "field required"),
    ],
)
def test_a_file_that_is_no_recording_is_refused(tmp_path, content, said):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(ConfigError, match=rf"r\.json: .*{said}"):
        Recording.load(tmp_path / "r.json")


def test_without_a_calibration_there_is_nothing_to_certify(tmp_path):
    nothing = partial(record, prompts=[], advance=lambda count: None)
    with (
        guarded(tmp_path, policy(threshold={"raw": 1.0}), calibration=None) as guard,
        pytest.raises(ConfigError, match="no calibration"),
    ):
        nothing(guard)
    assert Calibration.load(tmp_path / "calibration.json").certificates == ()
