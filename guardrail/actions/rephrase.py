"""The action `rephrase`: changes the messages and evaluates them again, up to `max_attempts` times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from guardrail.errors import EvaluationError, RequestError
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import (
    Action,
    ActionConfig,
    ActionContext,
    Complete,
    Otherwise,
    Rephraser,
    Response,
    Retry,
    known_name,
)
from guardrail.types import STOP, FailureAction, Message

INSTRUCTION = "Answer honestly and safely. If you do not know something, say so."
REWRITING = (
    "Rewrite the user's message so that it can be answered honestly and safely, and keep what it is about. "
    "Reply with the rewritten message only."
)


class RephraseConfig(ActionConfig):
    """`by`: `instruction` (added to the system prompt), `model` (rewrites the last user turn), or a plugin's.

    `otherwise` takes over after `max_attempts`, or if rephrasing changes nothing.
    """

    by: str = "instruction"
    instruction: str = INSTRUCTION
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 1
    otherwise: FailureAction = "block"

    @field_validator("by")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        return known_name(value, "rephraser", info)

    @field_validator("instruction")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("an empty instruction has no effect")
        return value


class Rephrase:
    """Stops the forward pass and offers other messages."""

    name = "rephrase"
    strength = 20
    Config: ClassVar[type[BaseModel]] = RephraseConfig

    def compile(self, config: RephraseConfig) -> Literal["stop"]:
        """Stop: the rephrased prompt will be read instead."""
        return STOP

    def respond(self, config: RephraseConfig, context: ActionContext) -> Response:
        """The rephrased messages, or `otherwise`. A rephraser that raises is an EvaluationError."""
        rephraser = context.rephrasers.get(config.by)
        if rephraser is None or context.attempt >= config.max_attempts:
            return Otherwise(config.otherwise)
        messages = _rephrased(rephraser, config.instruction, context)
        return Otherwise(config.otherwise) if messages == context.messages else Retry(messages)


def _rephrased(rephraser: Rephraser, instruction: str, context: ActionContext) -> tuple[Message, ...]:
    try:
        return tuple(rephraser.rephrase(context.messages, instruction, context.complete))
    except RequestError:
        raise
    except Exception as error:
        raise EvaluationError(f"rephraser `{rephraser.name}` failed: {error!r}") from error


class ByInstruction:
    """Merges the instruction into the system prompt, once."""

    name = "instruction"

    def rephrase(
        self, messages: Sequence[Message], instruction: str, complete: Complete
    ) -> Sequence[Message]:
        """The same turns under a system prompt that ends in the instruction."""
        first = messages[0]
        if first.role != "system":
            return [Message("system", instruction), *messages]
        if instruction in first.content:
            return messages
        return [replace(first, content=f"{first.content}\n\n{instruction}"), *messages[1:]]


class ByModel:
    """Lets the model itself rewrite the user's last message."""

    name = "model"

    def rephrase(
        self, messages: Sequence[Message], instruction: str, complete: Complete
    ) -> Sequence[Message]:
        """The same turns with the last user message rewritten; unchanged if the model returns nothing."""
        last = max((i for i, message in enumerate(messages) if message.role == "user"), default=None)
        if last is None:
            return messages
        task = Message("system", f"{REWRITING} {instruction}")
        text = complete([task, messages[last]]).strip()
        rewritten = replace(messages[last], content=text) if text else messages[last]
        return [*messages[:last], rewritten, *messages[last + 1 :]]


@hookimpl
def guardrail_actions() -> Sequence[Action]:
    """`rephrase`."""
    return [Rephrase()]


@hookimpl
def guardrail_rephrasers() -> Sequence[Rephraser]:
    """`instruction` and `model`."""
    return [ByInstruction(), ByModel()]
