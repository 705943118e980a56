"""The whole way from definitions to a vector file, on a model with a planted trait."""

from dataclasses import replace

import numpy as np
import pytest
from extraction import (
    CREATED,
    PLANTED,
    LetterJudge,
    contents,
    definition,
    direction,
    extract,
    planted_subject,
)
from safetensors import safe_open

from guardrail.errors import ConfigError, ExtractionError, NotInduced
from guardrail.extract.journal import locked
from guardrail.extract.stability import cosines
from guardrail.plugins.protocols import COHERENCE
from guardrail.traits import InstructionPair
from guardrail.types import Message
from guardrail.vectors.values import TraitVectors

OTHER = definition("loudness", "now + loud", "now soft")
MIXED = [(Message("user", text),) for text in ("is + it?", "no", "say + more", "well")]


@pytest.fixture(scope="module")
def subject():
    return planted_subject()


@pytest.fixture(scope="module")
def found(subject, tmp_path_factory):
    return extract(tmp_path_factory.mktemp("one"), subject=subject)


def test_the_planted_direction_steers_and_detects(found):
    vector = found.vectors["shouting"]
    planted = direction()[None]
    assert cosines(vector.steering[PLANTED : PLANTED + 1], planted)[0] > 0.99
    assert cosines(vector.probe[PLANTED : PLANTED + 1], planted)[0] > 0.5
    assert found.vectors.provenance.traits["shouting"].detection_auroc[PLANTED - 1] == 1.0
    assert found.failed == {}


def test_the_vector_steers_the_model_it_came_from(subject, found):
    """Adding it at its layer makes plain prompts say A; the trait was only ever asked for."""
    from guardrail.types import Steering

    vector = found.vectors["shouting"]
    steering = Steering(
        policy="test",
        trait="shouting",
        operator="add",
        layers=(PLANTED,),
        directions=(vector.steering[PLANTED],),
    )
    prompts = [[Message("user", text)] for text in ("hello", "what?", "tell me")]

    def share(steered):
        replies = subject.replies(prompts, seeds=range(3), max_new_tokens=20, steering=steered)
        text = "".join(reply.text for reply in replies)
        return text.count("A") / len(text)

    assert share([steering]) > 0.5 > 0.2 > share([])


def test_provenance_says_where_it_comes_from_and_survives_saving(found, subject, tmp_path):
    found.vectors.save(tmp_path / "v.safetensors")
    back = TraitVectors.load(tmp_path / "v.safetensors")
    assert back.sha256 == found.vectors.sha256
    assert back.provenance == found.vectors.provenance
    source = back.provenance
    assert (source.created, source.fingerprint, source.seeds) == (CREATED, subject.fingerprint, (0,))
    assert source.method == "steering: difference; probe: contrast"
    one = source.traits["shouting"]
    assert (one.rollouts, one.judge, one.definition_sha256) == (24, "letters", "0" * 64)
    assert 5 <= one.positive == one.negative <= 24
    assert one.positive_mean > 50 > one.baseline
    assert one.stability is not None
    assert one.stability.split_half[PLANTED] > 0.99
    assert one.others_auroc == ()


def test_the_same_content_is_the_same_bytes(found, tmp_path):
    for name in "ab":
        found.vectors.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_second_run_does_nothing_and_gives_the_same(found, subject, tmp_path):
    first = extract(tmp_path, subject=subject)
    before, judge = contents(tmp_path), LetterJudge()
    again = extract(tmp_path, subject=subject, judge=judge)
    assert judge.asked == []
    assert contents(tmp_path) == before
    assert again.vectors.sha256 == first.vectors.sha256 == found.vectors.sha256


def test_traits_together_are_told_apart_and_judged_for_one_another_only_where_needed(subject, tmp_path):
    judge = LetterJudge()
    both = extract(tmp_path / "a", [definition(), OTHER], subject=subject, judge=judge)
    assert set(both.vectors) == {"shouting", "loudness"}
    assert all(source.others_auroc for source in both.vectors.provenance.traits.values())
    assert len(judge.asked) == 2 * 60 * 2
    judge = LetterJudge()
    extract(tmp_path / "b", [definition(), OTHER], subject=subject, judge=judge, probe="regression")
    assert len(judge.asked) == 2 * 60 * 3
    assert {request.metric for request in judge.asked} == {"shouting", "loudness", COHERENCE}


def test_an_axis_runs_from_the_roles_to_the_default_each_role_counting_the_same(subject, tmp_path):
    """mean over roles of (mean of the default - mean of the role), from the replies that play the role."""
    pairs = [InstructionPair(positive="be +", negative=f"be {who}") for who in ("calm", "still", "quiet")]
    axis = replace(definition("assistant"), instructions=tuple(pairs), roles=("ape", "bee", "bee"))
    judge = LetterJudge()
    axis = replace(axis, rubric="{question} {answer} {role}")
    found = extract(tmp_path, [axis], subject=subject, judge=judge)
    assert {one.rubric for one in judge.asked if one.metric == "assistant"} == {
        f"{{question}} {{answer}} {role}" for role in ("ape", "bee")
    }
    source = found.vectors.provenance.traits["assistant"]
    assert source.stability.questions == 2
    file = next((tmp_path / "assistant").glob("moments*"))
    with safe_open(str(file), framework="numpy") as saved:
        sums, counts = saved.get_tensor("sums"), saved.get_tensor("counts")
    gaps = (sums[:, 0, 0] - sums[:, 1, 0]) / counts[:, None, None]
    assert np.allclose(found.vectors["assistant"].steering, gaps.mean(axis=0), atol=1e-4)
    assert counts[1] > counts[0] > 0


def test_orthogonalised_vectors_say_so(subject, tmp_path):
    found = extract(tmp_path, [definition(), OTHER], subject=subject, orthogonalise=True)
    first, second = found.vectors.values()
    assert np.allclose(first.cosine(second), 0, atol=1e-4)
    source = found.vectors.provenance
    assert "orthogonalised" in source.method
    assert all(one.untangled for one in source.traits.values())


def test_prompts_of_ones_own_are_rolled_out_judged_and_fitted_on(subject, found, tmp_path):
    judge = LetterJudge()
    mixed = extract(tmp_path, subject=subject, judge=judge, mixed=MIXED, mixed_samples=2, probe="regression")
    assert len(judge.asked) == 60 * 2 + 4 * 2 * 2
    assert len((tmp_path / "_mixed" / "rollouts.jsonl").read_text().splitlines()) == 1 + 8
    alone = extract(tmp_path / "alone", subject=subject, probe="regression")
    assert not np.array_equal(mixed.vectors["shouting"].probe, alone.vectors["shouting"].probe)
    assert np.array_equal(mixed.vectors["shouting"].steering, found.vectors["shouting"].steering)


def test_a_trait_that_cannot_be_induced_does_not_spoil_the_others(subject, tmp_path):
    found = extract(tmp_path, [definition(), definition("calm", "be still", "be quiet")], subject=subject)
    assert set(found.vectors) == {"shouting"}
    assert isinstance(found.failed["calm"], NotInduced)
    assert (tmp_path / "calm" / "evidence.json").is_file()


def test_a_folder_belongs_to_one_recipe(subject, tmp_path):
    extract(tmp_path, subject=subject)
    changed = replace(definition(), extraction=("other?", "questions?"))
    with pytest.raises(ExtractionError, match="another recipe: prompts"):
        extract(tmp_path, [changed], subject=subject)


def test_two_processes_do_not_share_a_folder(subject, tmp_path):
    with locked(tmp_path), pytest.raises(ExtractionError, match="another process is using"):
        extract(tmp_path, subject=subject)
    extract(tmp_path, subject=subject)


def test_traits_need_names_of_their_own(subject, tmp_path):
    with pytest.raises(ConfigError, match="at least one trait, each with a unique name"):
        extract(tmp_path, [definition(), definition()], subject=subject)


def test_every_stage_reports_its_progress(subject, tmp_path):
    told = []
    extract(tmp_path, subject=subject, report=lambda *args: told.append(args))
    ends = {stage: (done, total) for stage, done, total in told}
    assert ends["shouting: rollouts"] == ends["shouting: judging"] == (60, 60)
    assert set(ends) == {
        "shouting: rollouts",
        "shouting: judging",
        "shouting: activations",
        "shouting: prompts",
        "shouting: held-out prompts",
    }
