"""How a persona and a question become a prompt, and what a reader has to know about it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, TypeAlias

from guardrail.engines.transformers.rendering import PLAIN, Renderer
from guardrail.errors import PromptError
from guardrail.extract.subject import Subject
from guardrail.types import Message, RawPrompt

Form: TypeAlias = Literal["chat", "text"]
"""`chat`: the persona is the system message. `text`: it begins a text that the model continues."""
Ids: TypeAlias = tuple[int, ...]
UNTEMPLATED = "the tokenizer has no chat template: persona and question are a text that the model continues"
IN_FRONT = "the chat template takes no system message: the persona stands in front of the question"
PROBE = (Message("system", "You are tall."), Message("user", "Who are you?"))


def form_of(subject: Subject) -> Form:
    """Base models, which get the plain template, continue a text."""
    return "text" if subject.local.renderer.template == PLAIN else "chat"


def notes(subject: Subject, form: Form) -> Iterator[str]:
    """What is unusual about the prompts of this model."""
    if form == "text" and not getattr(subject.tokenizer, "chat_template", None):
        yield UNTEMPLATED
    if form == "chat" and not takes_system(subject):
        yield IN_FRONT


def text_ids(subject: Subject, text: str) -> Ids:
    """The ids of a text that is to be continued, without a chat template."""
    return subject.local.renderer.raw(RawPrompt(text), subject.local.vocabulary).ids


def chat_ids(subject: Subject, persona: str, question: str) -> Ids:
    """The ids of a conversation up to where the reply begins.

    The persona is the system message, or stands in front of the question if the template takes none. Raises
    PromptError if the template refuses the question as well.
    """
    if not persona:
        return subject.render([Message("user", question)]).ids
    if takes_system(subject):
        return subject.render([Message("system", persona), Message("user", question)]).ids
    return subject.render([Message("user", f"{persona}\n\n{question}")]).ids


def takes_system(subject: Subject) -> bool:
    """Whether the chat template neither refuses a system message nor leaves it out."""
    return _takes_system(subject.local.renderer)


@lru_cache(8)
def _takes_system(renderer: Renderer) -> bool:
    try:
        return renderer.render(PROBE).unread is None
    except PromptError:
        return False
