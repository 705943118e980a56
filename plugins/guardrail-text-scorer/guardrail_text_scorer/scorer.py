"""The classifier as a scorer: what the guard calls once per prompt."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.types import Message
from guardrail_text_scorer.classifier import TextClassifier


class TextScorer:
    """Scores what system and users wrote; the model's own turns are not evidence against a user."""

    def __init__(self, classifier: TextClassifier) -> None:
        self.name = classifier.name
        self.classifier = classifier

    def score(self, messages: Sequence[Message]) -> float:
        """The logit."""
        return self.classifier.logit(m.content for m in messages if m.role in ("system", "user"))
