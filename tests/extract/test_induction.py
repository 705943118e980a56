"""A random judge, a constant judge, one that knows the truth, and a model that ignores the trait."""

import json
from random import Random

import numpy as np
import pytest
from extraction import LetterJudge, contents, definition, extract, planted_subject

from guardrail.errors import NotInduced
from guardrail.extract.induction import LEVEL, PairScores, induction, told_apart
from guardrail.plugins.protocols import COHERENCE

QUESTIONS, EACH = 20, 12


def pairs(positive, negative, coherence=90.0):
    """Pairs of 20 questions; [n] scores of either side."""
    trait = np.stack([positive, negative], axis=1).astype(float)
    coherent = np.full(trait.shape, coherence) >= 50
    able = np.stack([coherent & (trait >= 50), coherent & (trait < 50)], axis=2)
    return PairScores(question=np.repeat(np.arange(QUESTIONS), EACH), scores=trait, able=able)


def drawn(seed):
    return np.random.default_rng(seed).uniform(0, 100, (2, QUESTIONS * EACH))


def test_a_judge_that_answers_at_random_keeps_a_quarter_and_shows_nothing():
    found = [pairs(*drawn(seed)) for seed in range(20)]
    assert 50 < np.mean([one.kept for one in found]) < 70
    assert sum(told_apart(induction(one)) for one in found) == 0
    assert induction(found[0]).chance == pytest.approx(60, abs=4)


def test_the_permutation_test_is_not_fooled_more_often_than_it_says():
    """p is uniform under chance, also where a judge scores by the question."""
    by_question = np.repeat(np.random.default_rng(0).uniform(-40, 40, QUESTIONS), EACH)
    found = [induction(pairs(*(drawn(seed) + by_question))).p for seed in range(40)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.15)
    assert sum(p <= LEVEL for p in found) <= 2


def test_a_constant_judge_shows_nothing():
    for score in (0, 50, 80):
        same = pairs(*np.full((2, QUESTIONS * EACH), score))
        assert same.constant == score
        assert not told_apart(induction(same))


def test_a_weak_trait_is_told_apart_from_chance():
    positive, negative = drawn(0)
    found = induction(pairs(np.clip(positive + 20, 0, 100), negative))
    assert told_apart(found)
    assert found.difference.low > 0
    assert found.chance_high < pairs(np.clip(positive + 20, 0, 100), negative).kept


def test_refused_scores_are_left_out_and_one_question_is_no_interval():
    positive, negative = drawn(0)
    positive[EACH:], negative[:] = np.nan, 0
    assert induction(pairs(positive, negative)).difference is None


def test_a_trait_turned_round_is_not_induced():
    negative, positive = drawn(0)
    found = induction(pairs(positive, np.clip(negative + 30, 0, 100)))
    assert found.difference.high < 0
    assert not told_apart(found)


# --- whole extractions ----------------------------------------------------------------------------------


class Judge(LetterJudge):
    """A judge whose score of a reply is any function of the request."""

    def __init__(self, name, score):
        self.name, self.score, self.asked = name, score, []

    def _score(self, request):
        return 90.0 if request.metric == COHERENCE else self.score(request)


def at_random(request):
    return 100 * Random(request.question + request.answer).random()


def answer_key(request):
    return 100.0 if request.answer.count("A") > 3 else 0.0


@pytest.fixture(scope="module")
def subject():
    return planted_subject()


def test_a_random_judge_is_refused_in_plain_words(subject, tmp_path):
    with pytest.raises(NotInduced) as raised:
        extract(tmp_path, subject=subject, judge=Judge("dice", at_random), minimum=1)
    text = str(raised.value)
    assert (
        "shouting cannot be induced in this model, or the judge dice does not tell its replies apart" in text
    )
    assert "of 24 pairs were kept, and chance keeps" in text
    assert json.loads(contents(tmp_path)["shouting/evidence.json"])["verdict"] == text


def test_a_constant_judge_is_told_from_a_random_one(subject, tmp_path):
    with pytest.raises(NotInduced, match=r"does not tell its replies apart: every reply .* same score, 70"):
        extract(tmp_path, subject=subject, judge=Judge("stone", lambda _: 70.0), minimum=1)


def test_a_judge_that_says_the_answer_key_is_believed(subject, tmp_path):
    found = extract(tmp_path, subject=subject, judge=Judge("key", answer_key))
    source = found.vectors.provenance.traits["shouting"]
    assert source.induction.difference.low > 50
    assert source.positive > source.induction.chance_high
    assert source.induction.p <= LEVEL
    assert json.loads(contents(tmp_path)["shouting/evidence.json"])["verdict"] == "induced"


def test_a_trait_that_the_model_ignores_cannot_be_induced_by_any_judge(subject, tmp_path):
    ignored = [definition(positive="be loud")]
    for judge in (Judge("key", answer_key), Judge("dice", at_random), Judge("stone", lambda _: 70.0)):
        with pytest.raises(NotInduced, match="shouting cannot be induced in this model"):
            extract(tmp_path / judge.name, ignored, subject=subject, judge=judge, minimum=1)


def test_a_judge_without_scores_says_how_little_its_numbers_weighed(subject, tmp_path):
    from guardrail.extract.judges.opinions import Opinion

    class Mumbling(Judge):
        def opinions(self, requests):
            return [Opinion(None, 0.02) for _ in requests]

    with pytest.raises(NotInduced, match=r"24 of 24 pairs were not judged \(numbers had 2.0% of"):
        extract(tmp_path, subject=subject, judge=Mumbling("mumbling", at_random))
    assert json.loads(contents(tmp_path)["shouting/evidence.json"])["numeric_mass"] == pytest.approx(0.02)
