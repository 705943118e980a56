"""From a model and benign prompts to a calibration and thresholds, on a tiny random model."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny import TOKENIZER
from tiny import policies as policy_content

from guardrail import Guard
from guardrail.calibrate import projections as collect
from guardrail.calibrate.achieved import achieved, rule_fired, trait_triggers
from guardrail.calibrate.fit import Options, calibrate, check_rates
from guardrail.calibrate.policy_file import PolicyFile
from guardrail.calibrate.sample import read, split
from guardrail.calibration.benign import Benign
from guardrail.calibration.values import Calibration
from guardrail.errors import CalibrationError, PolicyError, VectorError
from guardrail.evaluation.readout import Placed
from guardrail.extract.subject import Subject
from guardrail.plugins.manager import Plugins
from guardrail.policy.model import FprThreshold, RawThreshold
from guardrail.testing import CHAT_TEMPLATE, tiny_model
from guardrail.types import POSITIONS, Message, ProbeSite
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.values import TraitVector, TraitVectors

TRAITS = ("evil", "sycophancy", "humor")
OPTIONS = Options(population="made up", fpr=0.05, conversations=4, max_new_tokens=5)


@pytest.fixture(scope="module")
def subject():
    return Subject(tiny_model(), TOKENIZER, rows=16)


@pytest.fixture(scope="module")
def vectors(subject):
    rng = np.random.default_rng(3)
    rows = (subject.layers + 1, subject.d_model)
    made = {
        t: TraitVector.from_difference(t, rng.normal(size=rows), layer=2 + i) for i, t in enumerate(TRAITS)
    }
    provenance = Provenance(fingerprint=subject.fingerprint, method="random", created="2026-01-01")
    return TraitVectors(made, provenance)


def texts(seed, count):
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz     ?"))
    return ["".join(rng.choice(letters, rng.integers(5, 40))) + "." for _ in range(count)]


def sample(subject, contents, held_out=0.2):
    named = [(f"line {i}", content) for i, content in enumerate(contents)]
    found = read(named, lambda messages: subject.render(messages).ids, subject.longest)
    return split(found.prompts, held_out)


@pytest.fixture(scope="module")
def prompts(subject):
    return sample(subject, texts(0, 250))


@pytest.fixture(scope="module")
def made(subject, vectors, prompts):
    return calibrate(subject, vectors, prompts, OPTIONS)


def policy_file(folder, *rules, **keys):
    path = folder / "policy.yaml"
    path.write_text(json.dumps(policy_content(folder, *rules, **keys)))
    return PolicyFile.read(path, Plugins())


def rule(name, trait="evil", **keys):
    return {"id": name, "trait": trait, "action": "block", "threshold": {"fpr": 0.05}} | keys


def test_it_covers_every_trait_at_every_layer_and_says_what_it_is_made_of(made, vectors, subject):
    calibration, evidence = made.calibration, made.calibration.evidence
    assert {t: set(table) for t, table in calibration.probes.items()} == {t: {1, 2, 3, 4} for t in TRAITS}
    assert {t: set(table) for t, table in calibration.steering.items()} == {t: {1, 2, 3, 4} for t in TRAITS}
    assert calibration.fingerprint == subject.fingerprint
    assert calibration.vectors_sha256 == vectors.sha256
    assert calibration.population == "made up"
    assert (evidence.prompts, evidence.calibrated, evidence.held_out) == (250, 200, 50)
    assert evidence.conversations == 4
    assert evidence.tokens > 4 * 5
    (certificate,) = calibration.certificates
    assert (certificate.configuration.dtype, certificate.prompts) == ("float32", 200)
    assert certificate.created == calibration.created


def test_the_statistics_are_those_of_the_projections_one_prompt_at_a_time(made, subject, vectors, prompts):
    states = np.concatenate([subject.prompt_states([p.messages]) for p in prompts.calibration])
    for trait, layer in (("evil", 2), ("humor", 4)):
        vector = vectors[trait]
        expected = Benign.of(states[:, layer] @ vector.probe[layer] + vector.offset[layer])
        found = made.calibration.probes[trait][layer]
        assert found.n == 200
        assert found.mean == pytest.approx(expected.mean, rel=1e-4)
        assert found.sd == pytest.approx(expected.sd, rel=1e-4)
        assert found.high == pytest.approx(expected.high, rel=1e-4, abs=1e-4)


def test_steering_statistics_are_those_of_prompt_and_reply_tokens(subject, vectors, prompts):
    directions = collect.steering(vectors)
    block = prompts.calibration[:4]
    spoken = collect.speak(subject, block, new_tokens=5, seed=9, advance=lambda count: None)
    found = collect.token_projections(subject, spoken, directions, collect.followed(vectors, {}), seed=9)
    replies = subject.replies([p.messages for p in block], seeds=range(9, 13), max_new_tokens=5)
    rows = [(*p.ids, *reply.ids) for p, reply in zip(block, replies, strict=True)]
    spans = [[(i, i + 1) for i in range(max(map(len, rows)))] for _ in rows]
    states = subject.means(
        rows, [[(a, min(b, len(row))) for a, b in s] for row, s in zip(rows, spans, strict=True)]
    )
    expected = [s[i, 3] for row, s in zip(rows, states, strict=True) for i in range(len(row))]
    unit = vectors["evil"].steering[3] / np.linalg.norm(vectors["evil"].steering[3])
    values = found.steering.of("evil", 3)
    assert found.tokens == len(values) == len(expected)
    assert np.sort(values) == pytest.approx(np.sort(np.array(expected) @ unit), rel=1e-3, abs=1e-3)


def test_reply_statistics_leave_out_the_prompt_and_the_token_that_is_never_read(subject, vectors, prompts):
    spoken = collect.speak(subject, prompts.calibration[:4], new_tokens=5, seed=9, advance=lambda count: None)
    directions = collect.followed(vectors, {"evil": {3}})
    column = directions.columns.index(("evil", 3))
    rows = collect.token_projections(subject, spoken, collect.steering(vectors), directions, seed=9).replies
    vector = vectors["evil"]
    for one, row in zip(spoken, rows, strict=True):
        assert len(row) == len(one.ids) - one.start - 1
        states = subject.means([one.ids], [[(one.start, one.start + 1)]])[0, 0, 3]
        assert row[0, column] == pytest.approx(
            states @ vector.probe[3] + vector.offset[3], rel=1e-3, abs=1e-3
        )


def test_a_calibration_backs_policies_about_replies(made):
    of_replies = made.calibration.replies
    assert set(of_replies) == set(TRAITS)
    assert all(
        stats.extremes(f"{name} 16", "upper").n == made.calibration.evidence.conversations
        for layers in of_replies.values()
        for stats in layers.values()
        for name in ("mean", "max", "ema")
    )


def test_the_token_sample_is_bounded_and_uniform():
    reservoir = collect._Reservoir(500, 1, seed=0)
    for start in range(0, 20_000, 100):
        reservoir.add(np.arange(start, start + 100, dtype=np.float32)[:, None])
        assert len(reservoir.values) <= 500
    assert reservoir.seen == 20_000
    assert reservoir.values.mean() == pytest.approx(10_000, rel=0.1)


def test_a_benign_prompt_that_comes_again_does_not_fire(made, subject, vectors, prompts):
    kept = collect.prompt_projections(
        subject, prompts.calibration, collect.probes(vectors), lambda count: None
    )
    for trait, layer in kept.columns:
        values = kept.of(trait, layer)
        threshold = made.calibration.probes[trait][layer].conformal(0.05)
        assert (values >= threshold).sum() == 200 - 191
        strongest = made.calibration.probes[trait][layer].conformal(1 / 201 + 1e-6)
        assert (values >= strongest).sum() == 0


def test_the_rates_achieved_are_those_of_the_held_out_part(made, subject, vectors, prompts):
    held_out = collect.prompt_projections(
        subject, prompts.held_out, collect.probes(vectors), lambda count: None
    )
    for one in made.calibration.evidence.achieved:
        layer = vectors[one.name].layer
        threshold = made.calibration.probes[one.name][layer].conformal(0.05)
        assert (one.kind, one.fpr, one.n) == ("trait", 0.05, 50)
        assert one.fired == (held_out.of(one.name, layer) >= threshold).sum()
        assert one.low <= one.rate <= one.high


def test_it_reads_back_and_an_older_file_keeps_its_hash(made, tmp_path):
    made.calibration.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == made.calibration
    older = replace(made.calibration, evidence=None)
    older.save(tmp_path / "old.json")
    assert "evidence" not in json.loads((tmp_path / "old.json").read_text())
    assert Calibration.load(tmp_path / "old.json").sha256 == older.sha256


def test_the_same_prompts_in_another_order_give_the_same_calibration(made, subject, vectors):
    again = calibrate(subject, vectors, sample(subject, texts(0, 250)[::-1]), OPTIONS)
    for trait in TRAITS:
        for layer in range(1, 5):
            first, second = (one.calibration.probes[trait][layer] for one in (made, again))
            assert second.high == pytest.approx(first.high, rel=1e-4, abs=1e-4)


def test_ties_at_the_threshold_are_reported_and_do_not_fire(made, vectors):
    one = TraitVectors({"evil": vectors["evil"]}, vectors.provenance)
    draw = np.random.default_rng(5).integers(0, 10, (3000, 1)).astype(np.float32)
    kept, held_out = (collect.Projections((("evil", 2),), part) for part in (draw[:2000], draw[2000:]))
    benign = {"evil": {2: Benign.of(draw[:2000, 0])}}
    calibration = replace(made.calibration, probes=benign)
    (found,) = achieved(trait_triggers(one, calibration, {None: kept}, 0.05), held_out)
    assert found.tied == (draw[:2000] == 9).sum()
    assert found.fired == 0
    (looser,) = achieved(trait_triggers(one, calibration, {None: kept}, 0.15), held_out)
    assert looser.tied == (draw[:2000] == 8).sum()
    assert looser.fired == (draw[2000:] == 9).sum()


# --- policies -----------------------------------------------------------------------------------------


def test_rates_and_percentiles_follow_the_calibration_and_stay(subject, vectors, prompts, tmp_path):
    vectors.save(tmp_path / "vectors.safetensors")
    file = policy_file(tmp_path, rule("a"), rule("b", threshold={"percentile": 90}))
    found = calibrate(subject, vectors, prompts, OPTIONS, file)
    assert found.thresholds == {}
    names = [(one.kind, one.name) for one in found.calibration.evidence.achieved]
    assert names[3:] == [("policy", "a"), ("policy", "b"), ("set", "")]


def test_scores_and_projections_become_those_of_the_target_rate(subject, vectors, prompts, tmp_path):
    vectors.save(tmp_path / "vectors.safetensors")
    rules = (rule("a", threshold=9.0), rule("b", threshold={"raw": 9.0}, fires="below"))
    found = calibrate(subject, vectors, prompts, OPTIONS, policy_file(tmp_path, *rules))
    benign = found.calibration.probes["evil"][2]
    score = found.thresholds["policies", 0, "threshold"]
    raw = found.thresholds["policies", 1, "threshold"]
    assert score == pytest.approx(benign.standardise(benign.conformal(0.05)), rel=1e-5)
    assert isinstance(raw, RawThreshold)
    assert raw.raw == pytest.approx(benign.conformal(0.05, "lower"), rel=1e-5)
    assert benign.beyond(benign.mean + score * benign.sd) <= 200 - 191
    assert benign.beyond(raw.raw, "lower") <= 200 - 191


def test_a_set_rate_holds_for_the_set_on_the_calibration_part(subject, vectors, prompts, tmp_path):
    vectors.save(tmp_path / "vectors.safetensors")
    both = [{"trait": t, "threshold": {"fpr": 0.2}} for t in ("evil", "humor")]
    rules = (
        rule("a"),
        rule("b", "sycophancy", fires="below"),
        {"id": "c", "all_of": both, "action": "block"},
        rule("shadow", "humor", mode="shadow", threshold=3.0),
    )
    file = policy_file(tmp_path, *rules)
    found = calibrate(subject, vectors, prompts, replace(OPTIONS, set_fpr=0.1), file)
    assert {path[1] for path in found.thresholds} == {0, 1, 2}
    assert all(isinstance(value, FprThreshold) for value in found.thresholds.values())
    kept = collect.prompt_projections(
        subject, prompts.calibration, collect.probes(vectors), lambda count: None
    )
    fired = np.any([rule_fired(r, kept) for r in found.plan.rules if r.mode == "enforce"], axis=0)
    assert 0 < fired.sum() <= 0.1 * 201 - 1
    (whole,) = [one for one in found.calibration.evidence.achieved if one.kind == "set"]
    assert whole.fpr == 0.1


def test_policies_about_replies_are_calibrated_and_left_out_of_rates_about_prompts(
    subject, vectors, prompts, tmp_path
):
    monitor = {"statistic": "max", "window": 8}
    reply = rule("reply", stage="response", monitor=monitor, threshold={"fpr": 0.2})
    policies = policy_file(
        tmp_path, reply, rule("prompt", threshold={"fpr": 0.04}), rule("number", threshold=2.0)
    )
    made = calibrate(subject, vectors, prompts, OPTIONS, policies)
    assert set(made.thresholds) == {("policies", 2, "threshold")}
    assert "max 8" in made.calibration.replies["evil"][vectors["evil"].layer].highest
    assert made.plan is not None
    assert [one.id for one in made.plan.reply_rules] == ["reply"]
    rates = policy_file(tmp_path, reply, rule("prompt", threshold={"fpr": 0.04}))
    shared = calibrate(subject, vectors, prompts, replace(OPTIONS, set_fpr=0.02), rates)
    assert set(shared.thresholds) == {("policies", 1, "threshold")}


def test_a_set_rate_needs_rates_in_every_enforced_policy(subject, vectors, prompts, tmp_path):
    vectors.save(tmp_path / "vectors.safetensors")
    file = policy_file(tmp_path, rule("a"), rule("b", threshold=2.0), rule("c", threshold={"raw": 1.0}))
    with pytest.raises(PolicyError) as caught:
        calibrate(subject, vectors, prompts, replace(OPTIONS, set_fpr=0.1), file)
    assert [p.key for p in caught.value.problems] == ["policies[1].threshold", "policies[2].threshold"]
    assert all(problem.line for problem in caught.value.problems)


def test_a_set_without_an_enforced_policy_is_refused(subject, vectors, prompts, tmp_path):
    vectors.save(tmp_path / "vectors.safetensors")
    file = policy_file(tmp_path, rule("a", mode="shadow"), allow_empty=True)
    with pytest.raises(CalibrationError, match="no policy is enforced"):
        calibrate(subject, vectors, prompts, replace(OPTIONS, set_fpr=0.1), file)


def test_a_policy_that_the_sample_cannot_support_is_refused_with_its_place(
    subject, vectors, prompts, tmp_path
):
    vectors.save(tmp_path / "vectors.safetensors")
    file = policy_file(tmp_path, rule("a", threshold={"fpr": 0.001}))
    calls = []
    with pytest.raises(PolicyError, match=r"policy\.yaml:1:.*needs at least 999 benign prompts, not 200"):
        calibrate(subject, vectors, prompts, OPTIONS, file, calls.append)
    assert calls == []


def test_too_few_prompts_are_refused_before_the_model_is_read(vectors, subject, prompts):
    calls = []
    with pytest.raises(CalibrationError, match="needs at least 999 benign prompts, not 200"):
        calibrate(subject, vectors, prompts, replace(OPTIONS, fpr=0.001), advance=calls.append)
    assert calls == []


def test_a_rate_that_nobody_asked_for_is_that_of_the_set_or_named_as_the_default(prompts, vectors, tmp_path):
    few = replace(prompts, calibration=prompts.calibration[:50])
    vectors.save(tmp_path / "vectors.safetensors")
    check_rates(few, replace(OPTIONS, fpr=None, set_fpr=0.05), policy_file(tmp_path, rule("a")))
    with pytest.raises(CalibrationError, match=r"rate of 0\.01 needs at least 99 .*; 0\.01 is the default$"):
        check_rates(few, replace(OPTIONS, fpr=None), None)
    with pytest.raises(CalibrationError, match=r"held out \(--held-out\)$"):
        check_rates(few, replace(OPTIONS, fpr=0.01), None)


def test_vectors_of_another_model_are_refused_and_a_finetune_can_be_allowed(vectors, prompts):
    other = Subject(tiny_model(seed=1), TOKENIZER)
    options = replace(OPTIONS, conversations=0)
    with pytest.raises(VectorError, match=r"another model \(different: weights\)"):
        calibrate(other, vectors, prompts, options)
    found = calibrate(other, vectors, prompts, replace(options, allow_model_mismatch=True))
    assert found.calibration.fingerprint == other.fingerprint
    with pytest.raises(VectorError, match="4 layers x 32, this model has 2 x 32"):
        calibrate(Subject(tiny_model(layers=2), TOKENIZER), vectors, prompts, options)


@pytest.mark.parametrize("change", ["template", "model", "vectors"])
def test_a_calibration_of_something_else_is_refused_by_the_guard(subject, vectors, prompts, tmp_path, change):
    options = replace(OPTIONS, conversations=0)
    made = calibrate(subject, vectors, prompts, options).calibration
    made.save(tmp_path / "calibration.json")
    used = (
        replace(vectors, provenance=replace(vectors.provenance, notes="other"))
        if change == "vectors"
        else vectors
    )
    used.save(tmp_path / "vectors.safetensors")
    content = policy_content(tmp_path, rule("a"))
    template = CHAT_TEMPLATE.replace("<|end|>", "<|end|> ") if change == "template" else None
    model = tiny_model(seed=1 if change == "model" else 0)
    expected = {
        "template": "calibration made for another model .*chat_template",
        "model": "calibration made for another model .*weights",
        "vectors": "calibration: was made with another vector file",
    }
    with pytest.raises(PolicyError, match=expected[change]):
        Guard(model, TOKENIZER, content, chat_template=template)


def test_the_guard_fires_on_as_many_prompts_as_the_held_out_part_says(subject, vectors, prompts, tmp_path):
    vectors.save(tmp_path / "vectors.safetensors")
    found = calibrate(
        subject, vectors, prompts, OPTIONS, policy_file(tmp_path, rule("a"), rule("b", "humor"))
    )
    found.calibration.save(tmp_path / "calibration.json")
    whole = found.calibration.evidence.achieved[-1]
    with Guard(tiny_model(), TOKENIZER, str(tmp_path / "policy.yaml")) as guard:
        checks = guard.check_many([prompt.messages for prompt in prompts.held_out])
    assert sum(bool(check.decision.fired) for check in checks) == whole.fired


def test_activations_that_are_not_finite_name_the_prompt(vectors, prompts):
    class Broken:
        rows = 16

        def states(self, prompts, positions):
            return np.full((len(prompts), 1, 5, 32), np.nan, np.float32)

    name = prompts.calibration[0].name
    with pytest.raises(CalibrationError, match=f"{name}: the model's activations are not finite"):
        collect.prompt_projections(Broken(), prompts.calibration, collect.probes(vectors), lambda count: None)


def test_prompts_are_read_in_blocks_so_that_states_do_not_pile_up(vectors, subject):
    sizes = []

    class Counting:
        def states(self, prompts, positions):
            sizes.append(len(prompts))
            return np.zeros((len(prompts), 1, 5, 32), np.float32)

    many = sample(subject, texts(1, 700), 0.0).calibration
    collect.prompt_projections(Counting(), many, collect.probes(vectors), lambda count: None)
    assert sum(sizes) == len(many)
    assert max(sizes) == collect.BLOCK < len(many)


TOOLS = "{% for m in messages %}<|user|>{{ m.role }}:{{ m.content }}<|end|>{% endfor %}<|assistant|>"


@pytest.fixture(scope="module")
def pooled():
    """A model with a template that knows tools, and vectors with every kind of read-out."""
    subject = Subject(tiny_model(), TOKENIZER, rows=16, chat_template=TOOLS)
    rng = np.random.default_rng(5)
    rows = (subject.layers + 1, subject.d_model)
    harm = TraitVector.from_difference("harm", rng.normal(size=rows), layer=3)
    places = ((1, "prompt_mean"), (3, "last"), (3, "user_mean"))
    sites = tuple(
        ProbeSite(layer=layer, position=p, weights=harm.probe[i + 1], normalised=i != 1)
        for i, (layer, p) in enumerate(places)
    )
    made = {
        "harm": replace(harm, position="user_mean", sites=sites),
        "theft": replace(
            TraitVector.from_difference("theft", rng.normal(size=rows), 2), position="tool_mean"
        ),
    }
    provenance = Provenance(fingerprint=subject.fingerprint, method="random", created="2026-01-01")
    return subject, TraitVectors(made, provenance)


@pytest.fixture(scope="module")
def pooled_prompts(pooled):
    results = [[Message("tool", text[::-1])] * (i % 3 > 0) for i, text in enumerate(texts(1, 250))]
    talks = [[Message("user", text), *result] for text, result in zip(texts(0, 250), results, strict=True)]
    return sample(pooled[0], talks)


@pytest.fixture(scope="module")
def pooled_made(pooled, pooled_prompts):
    return calibrate(*pooled, pooled_prompts, OPTIONS)


def test_means_and_sums_are_calibrated_as_they_are_read(pooled, pooled_prompts, pooled_made):
    subject, vectors = pooled
    read = [subject.read([prompt.messages], POSITIONS) for prompt in pooled_prompts.calibration]
    for trait, layer in (("harm", 2), ("harm", 3), ("theft", 2)):
        probe, found = vectors[trait].probe_at(layer), []
        for states in read:
            if trait == "theft" and np.isnan(states["tool_mean"]).all():
                continue
            found += probe.projection(Placed(states)).tolist()
        benign = pooled_made.calibration.probes[trait][layer]
        assert benign.n == len(found) == (200 if trait == "harm" else benign.n)
        assert benign.mean == pytest.approx(np.mean(found), rel=1e-3, abs=1e-5)
        assert benign.sd == pytest.approx(np.std(found, ddof=1), rel=1e-3)
    assert 100 < pooled_made.calibration.probes["theft"][2].n < 200
    assert "harm" not in pooled_made.calibration.replies


def test_a_guard_scores_prompts_as_the_calibration_did(tmp_path, pooled, pooled_prompts, pooled_made):
    subject, vectors = pooled
    vectors.save(tmp_path / "vectors.safetensors")
    pooled_made.calibration.save(tmp_path / "calibration.json")
    rules = [rule("harm", "harm"), rule("theft", "theft")]
    with Guard(subject.model, TOKENIZER, policy_content(tmp_path, *rules), chat_template=TOOLS) as guard:
        for prompt in pooled_prompts.held_out[:6]:
            decision = guard.check(prompt.messages).decision
            harm, theft = decision.scores
            states = Placed(subject.read([prompt.messages], POSITIONS))
            for score, trait in ((harm, "harm"), (theft, "theft")):
                benign = pooled_made.calibration.probes[trait][score.layer]
                projection = vectors[trait].probe_at(score.layer).projection(states)[0]
                nothing = trait == "theft" and prompt.messages[-1].role != "tool"
                expected = 0 if nothing else benign.standardise(projection)
                assert score.score == pytest.approx(expected, rel=1e-3, abs=1e-3)
            own = guard.project(prompt.messages, ["harm"], [3])
            assert own[0, 0] == pytest.approx(harm.score, rel=1e-3, abs=1e-3)


def test_no_tool_result_in_the_sample_is_said(pooled, pooled_prompts):
    bare = [prompt.messages[:1] for prompt in pooled_prompts.prompts]
    with pytest.raises(CalibrationError, match="theft at layer 1: no benign prompt has tool results"):
        calibrate(*pooled, sample(pooled[0], bare), OPTIONS)
