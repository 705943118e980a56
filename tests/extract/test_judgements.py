"""Judging: every rollout for every metric once; a judge that fails or talks nonsense loses nothing."""

import pytest
from extraction import LetterJudge, contents, definition, planted_subject

from guardrail.engines import Continuation
from guardrail.errors import JudgeError
from guardrail.extract.judgements import judge_rollouts
from guardrail.extract.prompts import trait_prompts
from guardrail.extract.rollouts import RolloutSettings, roll_out
from guardrail.plugins.protocols import COHERENCE

RUBRICS = {"shouting": "{question} {answer}", COHERENCE: "{answer}"}


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory):
    settings = RolloutSettings(samples=2, max_new_tokens=6, batch=8)
    prompts = trait_prompts(definition())
    return roll_out(planted_subject(), "shouting", prompts, settings, tmp_path_factory.mktemp("rollouts"))


class Answering:
    def __init__(self, answer):
        self.name, self.answer = "answering", answer

    def scores(self, requests):
        return self.answer(requests)


def test_each_row_has_a_score_for_each_metric(rollouts, tmp_path):
    judge = LetterJudge()
    judged = judge_rollouts(rollouts, judge, RUBRICS, tmp_path)
    assert len(judge.asked) == 2 * len(rollouts)
    for row in range(len(rollouts)):
        text = rollouts.reply(row).text
        assert judged.scores(row) == {"shouting": 100 * text.count("A") / len(text), COHERENCE: 90.0}


def test_the_judge_is_asked_with_the_question_the_rubric_and_whether_the_reply_ended(rollouts, tmp_path):
    judge = LetterJudge()
    judge_rollouts(rollouts, judge, RUBRICS, tmp_path)
    for row, request in enumerate(judge.asked[::2]):
        prompt, reply = rollouts.prompts[rollouts.place(row)[0]], rollouts.reply(row)
        assert (request.metric, request.rubric) == ("shouting", RUBRICS["shouting"])
        assert (request.question, request.answer, request.ended) == (prompt.asked, reply.text, reply.ended)


def test_means_are_over_the_judged_replies_of_each_prompt(rollouts, tmp_path):
    def answer(requests):
        return [None if "A" in r.answer else float(len(r.answer)) for r in requests]

    judged = judge_rollouts(rollouts, Answering(answer), RUBRICS, tmp_path)
    means = judged.means("shouting")
    for prompt, mean in enumerate(means):
        texts = [rollouts.reply(rollouts.row(prompt, sample)).text for sample in range(2)]
        lengths = [len(text) for text in texts if "A" not in text]
        assert mean == pytest.approx(sum(lengths) / len(lengths) if lengths else float("nan"), nan_ok=True)
    assert 0 < sum(means != means) < len(means)


def test_a_judge_that_breaks_off_keeps_what_it_did_and_ends_at_the_same_bytes(rollouts, tmp_path):
    calls = []

    def breaking(requests):
        calls.append(len(requests))
        if len(calls) == 3:
            raise JudgeError("the endpoint is down")
        return LetterJudge().scores(requests)

    judge_rollouts(rollouts, Answering(LetterJudge().scores), RUBRICS, tmp_path / "whole")
    with pytest.raises(JudgeError, match="down"):
        judge_rollouts(rollouts, Answering(breaking), RUBRICS, tmp_path / "broken")
    assert len((tmp_path / "broken" / "scores.jsonl").read_text().splitlines()) == 1 + 2 * 8
    judge_rollouts(rollouts, Answering(breaking), RUBRICS, tmp_path / "broken")
    assert sum(calls) == 2 * len(rollouts) + 16
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (lambda requests: [50.0], "1 scores for 16 requests"),
        (lambda requests: [101.0] * len(requests), "score of 101"),
        (lambda requests: [float("nan")] * len(requests), "score of nan"),
    ],
)
def test_nonsense_of_a_judge_is_an_error(rollouts, tmp_path, answer, match):
    with pytest.raises(JudgeError, match=match):
        judge_rollouts(rollouts, Answering(answer), RUBRICS, tmp_path)


def test_empty_replies_are_not_shown_to_the_judge(rollouts, tmp_path):
    class Mute:
        prompts, journal, place = rollouts.prompts, rollouts.journal, rollouts.place

        def __len__(self):
            return len(rollouts)

        def reply(self, row):
            return Continuation(" \n" if row else "A", (5,), True)

    judge = LetterJudge()
    judged = judge_rollouts(Mute(), judge, RUBRICS, tmp_path)
    assert len(judge.asked) == 2
    assert judged.scores(1) == {"shouting": None, COHERENCE: None}


def test_another_judge_or_rubric_is_refused(rollouts, tmp_path):
    judge_rollouts(rollouts, LetterJudge(), RUBRICS, tmp_path)
    with pytest.raises(Exception, match="judge"):
        judge_rollouts(rollouts, Answering(LetterJudge().scores), RUBRICS, tmp_path)
    with pytest.raises(Exception, match="rubrics"):
        judge_rollouts(rollouts, LetterJudge(), {**RUBRICS, "shouting": "new"}, tmp_path)
