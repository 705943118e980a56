"""The paired filter, exactly as the official code's mask, and when there is nothing to extract."""

import json

import pytest
from extraction import LetterJudge, contents, definition, extract, planted_subject
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import NotInduced, TooFewPairs
from guardrail.extract.evidence import Evidence, check_induced
from guardrail.extract.filter import kept_pairs, reason_to_drop
from guardrail.extract.judgements import judge_rollouts
from guardrail.extract.prompts import trait_prompts
from guardrail.extract.rollouts import RolloutSettings, roll_out
from guardrail.plugins.protocols import COHERENCE
from guardrail.statistics.intervals import Estimate
from guardrail.vectors.provenance import Induction

scores = st.none() | st.sampled_from([0.0, 49.99, 50.0, 100.0]) | st.floats(0, 100)


@given(scores, scores, scores, scores)
def test_a_pair_is_kept_by_the_mask_of_the_official_code(positive, negative, coherence, other):
    kept = (
        None not in (positive, negative, coherence, other)
        and positive >= 50
        and negative < 100 - 50
        and coherence >= 50
        and other >= 50
    )
    reason = reason_to_drop(
        "evil", {"evil": positive, COHERENCE: coherence}, {"evil": negative, COHERENCE: other}
    )
    assert (reason is None) == kept


class Seeming:
    """Scores by what the request says: a table from the side of the prompt to its scores."""

    name = "seeming"

    def __init__(self, score):
        self.score = score

    def scores(self, requests):
        return [self.score(request) for request in requests]


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory):
    settings = RolloutSettings(samples=3, max_new_tokens=8, batch=16)
    prompts = trait_prompts(definition())
    return roll_out(planted_subject(), "shouting", prompts, settings, tmp_path_factory.mktemp("rollouts"))


def judged(rollouts, folder, score=None):
    judge = Seeming(score) if score else LetterJudge()
    rubrics = {"shouting": "{question} {answer}", COHERENCE: "{answer}"}
    return judge_rollouts(rollouts, judge, rubrics, folder)


def test_pairs_are_the_same_instruction_question_and_sample(rollouts, tmp_path):
    pairs, evidence = kept_pairs(judged(rollouts, tmp_path), "shouting")
    assert evidence.pairs == 2 * 4 * 3
    assert len(pairs) == evidence.kept > 15
    for pair in pairs:
        one, other = rollouts.place(pair.positive), rollouts.place(pair.negative)
        first, second = rollouts.prompts[one[0]], rollouts.prompts[other[0]]
        assert (first.kind, second.kind) == ("positive", "negative")
        assert (first.instruction, first.question) == (second.instruction, second.question)
        assert (one[1], first.question) == (other[1], pair.question)


def test_evidence_counts_what_was_dropped_and_why(rollouts, tmp_path):
    def score(request):
        if request.metric == COHERENCE:
            return 10.0 if "when" in request.question else 90.0
        return None if "where" in request.question else LetterJudge()._score(request)

    _, evidence = kept_pairs(judged(rollouts, tmp_path, score), "shouting")
    assert evidence.dropped["not judged"] == 6
    assert evidence.dropped["incoherent"] > 0
    assert evidence.kept + sum(evidence.dropped.values()) == evidence.pairs == 24


def test_means_are_by_side_with_the_baseline_of_plain_questions(rollouts, tmp_path):
    found = judged(rollouts, tmp_path)
    _, evidence = kept_pairs(found, "shouting")
    by_kind = {"positive": [], "negative": [], "neutral": []}
    for row, (prompt, _) in enumerate(rollouts.replies()):
        by_kind[prompt.kind].append(found.scores(row)["shouting"])
    for kind, mean in zip(
        by_kind, (evidence.positive_mean, evidence.negative_mean, evidence.baseline), strict=True
    ):
        assert mean == pytest.approx(sum(by_kind[kind]) / len(by_kind[kind]))
    assert evidence.raised == sum(score >= 50 for score in by_kind["positive"]) / 24


SHOWN = Induction(difference=Estimate(30.0, 20.0, 40.0), chance=2.0, chance_high=4.0, p=0.0005)


def evidence(kept, raised):
    return Evidence(
        trait="evil",
        judge="letters",
        induction=SHOWN,
        pairs=100,
        kept=kept,
        dropped={"incoherent": 100 - kept},
        positive_mean=12.3,
        negative_mean=None,
        baseline=1.0,
        raised=raised,
    )


def test_too_few_pairs_and_no_trait_at_all_are_different_errors():
    check_induced(evidence(20, 0.5))
    with pytest.raises(TooFewPairs, match="19 of 100 pairs were kept and 20 are needed"):
        check_induced(evidence(19, 0.5))
    with pytest.raises(NotInduced, match=r"cannot be induced in this model.*mean score 12\.3"):
        check_induced(evidence(5, 0.1))


def test_a_trait_that_is_not_raised_keeps_its_evidence(tmp_path):
    calm = definition(positive="be loud")
    with pytest.raises(NotInduced, match="shouting cannot be induced"):
        extract(tmp_path, [calm])
    kept = contents(tmp_path)
    told = json.loads(kept["shouting/evidence.json"])
    assert told["kept"] == 0
    assert told["verdict"].startswith(
        "shouting cannot be induced in this model, or the judge letters does not"
    )
    assert len(kept["shouting/rollouts.jsonl"].splitlines()) == 1 + 20 * 3
    assert len(kept["shouting/scores.jsonl"].splitlines()) == 1 + 20 * 3
