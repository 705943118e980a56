"""Scores of a model's replies: empty ones are not shown to the judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from guardrail.engines import Continuation
from guardrail.extract.judges.asking import coherence_request, trait_request
from guardrail.extract.judges.opinions import opinions
from guardrail.extract.prompts import RolloutPrompt
from guardrail.plugins.protocols import Judge, JudgeRequest
from guardrail.traits import TraitDefinition

Said: TypeAlias = Sequence[tuple[RolloutPrompt, Continuation]]


def trait_scores(judge: Judge, definition: TraitDefinition, said: Said) -> list[float | None]:
    """For a trait, in the order of replies; None for empty ones, and where the judge refuses."""

    def request(prompt: RolloutPrompt, reply: Continuation) -> JudgeRequest:
        return trait_request(definition, prompt.asked, reply.text, ended=reply.ended, role=prompt.role)

    return _scores(judge, said, request, None)


def coherence_scores(judge: Judge, said: Said) -> list[float | None]:
    """For coherence, in the order of replies; 0 for empty ones, None where the judge refuses."""
    return _scores(judge, said, lambda p, r: coherence_request(p.asked, r.text, ended=r.ended), 0.0)


def _scores(
    judge: Judge,
    said: Said,
    request: Callable[[RolloutPrompt, Continuation], JudgeRequest],
    empty: float | None,
) -> list[float | None]:
    """The judge is asked for all at once."""
    shown = [reply.text.strip() != "" for _, reply in said]
    found = iter(opinions(judge, [request(*one) for one, some in zip(said, shown, strict=True) if some]))
    return [next(found).score if some else empty for some in shown]
