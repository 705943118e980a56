"""How a persona and a question become a prompt."""

from __future__ import annotations

from typing import Literal, TypeAlias

from guardrail.engines.transformers.rendering import PLAIN
from guardrail.extract.subject import Subject
from guardrail.types import RawPrompt

Form: TypeAlias = Literal["chat", "text"]
"""`chat`: the persona is the system message. `text`: it begins a text that the model continues."""


def form_of(subject: Subject) -> Form:
    """Base models, which get the plain template, continue a text."""
    return "text" if subject.local.renderer.template == PLAIN else "chat"


def text_ids(subject: Subject, text: str) -> tuple[int, ...]:
    """The ids of a text that is to be continued, without a chat template."""
    return subject.local.renderer.raw(RawPrompt(text), subject.local.vocabulary).ids
