"""The judge of the demo world. It knows every possible sentence there and needs no model."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.demo.judge import Verdict, judge
from guardrail.demo.recognise import recognise
from guardrail.demo.world import POLES, poles_of
from guardrail.errors import JudgeError
from guardrail.files.problems import suggest
from guardrail.plugins.protocols import COHERENCE, JudgeRequest


class DemoJudge:
    """Scores replies of the built-in model; None for questions from outside its world. Needs no rubric."""

    name = "demo"

    def scores(self, requests: Sequence[JudgeRequest]) -> Sequence[float | None]:
        """Raises JudgeError for a trait that the demo world does not have."""
        return [self._score(request) for request in requests]

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


def _score(trait: str, verdict: Verdict) -> float:
    """A trait with two poles scores 50 if neither shows."""
    poles = poles_of(trait)
    if len(poles) < 2:
        return verdict.traits[trait]
    own, other = (verdict.traits[pole] for pole in poles)
    return 50 + (own - other) / 2
