"""The action `block`: a refusal replaces the model's answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import BaseModel

from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import Action, ActionConfig, ActionContext, Answer
from guardrail.types import STOP

REFUSAL = "I can't help with that."


class BlockConfig(ActionConfig):
    """`message` is the refusal. It defaults to the policy's own `message`, then to a short built-in text."""

    message: str | None = None


class Block:
    """The strongest action: nothing is generated."""

    name = "block"
    strength = 40
    Config: ClassVar[type[BaseModel]] = BlockConfig

    def compile(self, config: BlockConfig) -> Literal["stop"]:
        """Stop at the last layer read."""
        return STOP

    def respond(self, config: BlockConfig, context: ActionContext) -> Answer:
        """The refusal."""
        return Answer(config.message or context.message or REFUSAL)


@hookimpl
def guardrail_actions() -> Sequence[Action]:
    """`block`."""
    return [Block()]
