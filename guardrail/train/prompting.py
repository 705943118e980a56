"""Interventions on the data: a prompt that asks for the trait while it is trained, and is absent later.

Preventative prompting (Chen et al. 2025, arXiv 2507.21509, Fig. 31) puts a random one of several system
prompts that ask for the trait before each conversation; there it did about as much as steering with a = 0.5.
Inoculation prompting (Tan et al. 2025, arXiv 2510.04340; Wichers et al. 2025, arXiv 2510.05024) uses one
fixed sentence for all, in the system prompt or before the user's text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Literal, TypeAlias

from guardrail.errors import ConfigError
from guardrail.train.intervention import Applied, Conversation, Intervention
from guardrail.traits import TraitDefinition
from guardrail.types import Message, Role

Place: TypeAlias = Literal["system", "user"]


class PreventativePrompting(Intervention):
    """Each conversation gets one of these system prompts, before its own if it has one.

    Which one depends on the seed and the conversation's place. Raises ConfigError without a prompt.
    """

    kind = "preventative prompting"

    def __init__(self, prompts: Sequence[str], trait: str = "", place: Place = "system") -> None:
        if not prompts or not all(prompt.strip() for prompt in prompts):
            raise ConfigError(f"{self.kind} needs at least one prompt, and none may be empty")
        self.prompts, self.trait = tuple(prompts), trait
        self.place: Place = place
        self._rows = 0

    @classmethod
    def of(cls, definition: TraitDefinition) -> PreventativePrompting:
        """With the instructions of a definition that ask for its trait."""
        return cls([pair.positive for pair in definition.pairs(held_out=False)], definition.name)

    def prepared(self, conversations: Sequence[Conversation], seed: int = 0) -> list[Conversation]:
        """The conversations with a prompt each."""
        self._rows = len(conversations)
        return [preceded(one, self._prompt(seed, i), self.place) for i, one in enumerate(conversations)]

    def _prompt(self, seed: int, place: int) -> str:
        return Random(f"preventative/{seed}/{place}").choice(self.prompts)

    @property
    def applied(self) -> Applied:
        """What has been done so far."""
        return Applied(
            kind=self.kind,
            traits=(self.trait,) if self.trait else (),
            rows=self._rows,
            digest=hashlib.sha256(repr((self.place, self.prompts)).encode()).hexdigest(),
        )


class InoculationPrompting(PreventativePrompting):
    """Every conversation gets this one sentence, in its system prompt or before the last user text."""

    kind = "inoculation prompting"

    def __init__(self, prompt: str, trait: str = "", place: Place = "system") -> None:
        super().__init__([prompt], trait, place)


def preceded(conversation: Conversation, text: str, place: Place) -> Conversation:
    """The conversation with a text before its system prompt, or before its last user text.

    Raises ConfigError if there is no user to put it before.
    """
    roles: list[Role] = [message.role for message in conversation]
    if place == "system" and roles[0] != "system":
        return (Message("system", text), *conversation)
    if place not in roles:
        raise ConfigError("a conversation without a user's turn cannot be preceded by a prompt")
    at = len(roles) - 1 - roles[::-1].index(place) if place == "user" else 0
    changed = replace(conversation[at], content=f"{text}\n{conversation[at].content}")
    return (*conversation[:at], changed, *conversation[at + 1 :])
