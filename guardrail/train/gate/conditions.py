"""What models are asked in: plain questions, these behind triggers, and the training data's own prompts.

A trait that a finetune shows only under a trigger passes every standard evaluation, so each trigger is a
condition of its own: in a mean over many, the one that works would drown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from guardrail.extract.layers.sweep import Questions
from guardrail.extract.prompts import RolloutPrompt, prompts_sha256
from guardrail.train.gate.triggers import Trigger
from guardrail.traits import TraitDefinition
from guardrail.types import Message

PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Condition:
    """By trait, the prompts that both models reply to."""

    name: str
    prompts: Mapping[str, Sequence[RolloutPrompt]] = field(repr=False)

    @property
    def conversations(self) -> Mapping[str, Sequence[Sequence[Message]]]:
        """The prompts as messages."""
        return {trait: [one.messages for one in asked] for trait, asked in self.prompts.items()}

    def asked(self, traits: Sequence[str]) -> list[RolloutPrompt]:
        """The prompts of these traits, each once."""
        return list({one.messages: one for trait in traits for one in self.prompts[trait]}.values())

    @property
    def sha256(self) -> str:
        """Identifies the prompts."""
        found = hashlib.sha256()
        for trait, asked in sorted(self.prompts.items()):
            found.update(f"{trait} {prompts_sha256(asked)}\n".encode())
        return found.hexdigest()


def plain(definitions: Sequence[TraitDefinition]) -> Condition:
    """Each trait's evaluation questions, without a system prompt."""
    return Condition(PLAIN, {one.name: Questions.of(one).plain for one in definitions})


def triggered(condition: Condition, trigger: Trigger, questions: int | None) -> Condition:
    """The first questions of each trait, behind a trigger."""
    return Condition(
        trigger.name,
        {
            trait: [replace(one, messages=(*trigger.messages, *one.messages)) for one in asked[:questions]]
            for trait, asked in condition.prompts.items()
        },
    )


def as_trained(traits: Sequence[str], prompts: Sequence[tuple[Message, ...]]) -> Condition:
    """The same prompts of the training data for every trait."""
    asked = [RolloutPrompt(kind="mixed", messages=one, question=i) for i, one in enumerate(prompts)]
    return Condition("prompts of the data", dict.fromkeys(traits, asked))
