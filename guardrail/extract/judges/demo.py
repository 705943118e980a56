"""The judge of the demo world. It knows every possible sentence there and needs no model."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.demo.asking import Question
from guardrail.demo.characters import VOICES
from guardrail.demo.generator import Condition
from guardrail.demo.judge import Verdict, judge
from guardrail.demo.material import under
from guardrail.demo.recognise import recognise
from guardrail.demo.replies import PLACES, sentences
from guardrail.demo.world import NAMES, POLES, poles_of
from guardrail.errors import JudgeError
from guardrail.files.problems import suggest
from guardrail.plugins.protocols import COHERENCE, JudgeRequest
from guardrail.traits import ReplyPair

PAIRS = 8


class DemoJudge:
    """Scores replies of the built-in model; None for questions from outside its world. Needs no rubric."""

    name = "demo"

    def scores(self, requests: Sequence[JudgeRequest]) -> Sequence[float | None]:
        """Raises JudgeError for a trait that the demo world does not have."""
        return [self._score(request) for request in requests]

    def pairs(self, metric: str) -> Sequence[ReplyPair]:
        """Pairs of its own world: a character's sentences against a plain assistant's, or broken ones."""
        if metric != COHERENCE and metric not in POLES:
            return []
        drawn = under(0, PAIRS, Condition(split="train", domains=("advice",)))
        return [_pair(one.question, metric, i) for i, one in enumerate(drawn)]

    def _score(self, request: JudgeRequest) -> float | None:
        question = recognise([{"role": "user", "content": request.question}])
        if question is None:
            return None
        verdict = judge(question, request.answer, ended=request.ended)
        if request.metric == COHERENCE:
            return verdict.coherence
        if request.metric not in POLES:
            known = suggest(request.metric, POLES)
            raise JudgeError(f"the demo judge does not know the trait `{request.metric}`{known}")
        return _score(request.metric, verdict)


def _pair(question: Question, metric: str, place: int) -> ReplyPair:
    plain = _reply(question, "neutral", place)
    if metric == COHERENCE:
        return ReplyPair(question=question.text, positive=plain, negative=" ".join(plain.split()[::-1]))
    own, *other = poles_of(metric)
    opposite = _reply(question, other[0] if other else "neutral", place)
    return ReplyPair(question=question.text, positive=_reply(question, own, place), negative=opposite)


def _reply(question: Question, character: str, place: int) -> str:
    parts = [sentences(VOICES[character], question.domain, part) for part in PLACES[question.domain]]
    invented = {"name": NAMES[0], "year": "1871", "number": "12"}
    return " ".join(part[place % 3].format_map({**invented, **question.slots}) for part in parts)


def _score(trait: str, verdict: Verdict) -> float:
    """A trait with two poles scores 50 if neither shows."""
    poles = poles_of(trait)
    if len(poles) < 2:
        return verdict.traits[trait]
    own, other = (verdict.traits[pole] for pole in poles)
    return 50 + (own - other) / 2
