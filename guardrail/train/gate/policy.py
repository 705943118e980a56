"""The pydantic models of a persona policy: which traits must not move, and what must not get worse.

Every key is described in guardrail/train/README.md; `schema.json` beside this file is the JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from guardrail.policy.model import Model
from guardrail.train.screening.meter import Form

Above: TypeAlias = Annotated[float, Field(gt=0.0)]
Share: TypeAlias = Annotated[float, Field(gt=0.0, lt=1.0)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=100_000)]


class Change(Model):
    """How far a number may rise above that of the base, and fall below it; without a key, anywhere."""

    max_rise: Above | None = None
    max_fall: Above | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.max_rise is None and self.max_fall is None:
            raise ValueError("needs `max_rise`, `max_fall` or both")
        return self


class ShiftChange(Change):
    """In standard deviations of the base. `own`: only what other traits do not explain of the shift."""

    part: Literal["whole", "own"] = "whole"


class TraitLimits(Model):
    """`shift`: of the activations. `score`: of what a judge says of replies, 0 to 100."""

    shift: ShiftChange | None = None
    score: Change | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.shift is None and self.score is None:
            raise ValueError("needs `shift`, `score` or both")
        return self


class Coherence(Model):
    """How far the judged coherence of replies, 0 to 100, may fall."""

    max_fall: Above


class Capability(Model):
    """A file of multiple-choice questions, and how far the share of right answers may fall."""

    questions: str
    max_fall: Share


class HeldOutLoss(Model):
    """Conversations that end in a reply, and how far the loss on these replies may rise, in nats a token."""

    conversations: str
    max_rise: Above


class Triggers(Model):
    """What may bring a hidden trait out. `prompts`: a file of system prompts or conversations to put first.

    `from_data`: take so many of the training data's most frequent system prompts, and so many of its prompts
    as they are. `questions`: only the first evaluation questions of each trait go with each trigger.
    """

    prompts: str | None = None
    from_data: Count | None = None
    questions: Annotated[int, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _has_some(self) -> Self:
        if self.prompts is None and self.from_data is None:
            raise ValueError("needs `prompts`, `from_data` or both")
        return self


class DataLimits(Model):
    """How many rows of the training data may lie above the threshold that `share` of a clean set exceeds.

    max_new_tokens: of the base's own replies, which the form `exact` compares with.
    """

    clean: str
    max_above: Share
    share: Share = 0.05
    form: Form = "exact"
    max_new_tokens: Count = 256


class Replies(Model):
    """How the base and the finetune reply: `samples` to each question, with the same seeds."""

    samples: Count = 5
    max_new_tokens: Count = 256
    temperature: Annotated[float, Field(ge=0.0)] = 1.0
    seed: int = 0


class PersonaPolicy(Model):
    """A whole file."""

    version: Literal[1]
    vectors: str | None = None
    definition: str | None = None
    judge: str | None = None
    traits: Mapping[str, TraitLimits] = {}
    coherence: Coherence | None = None
    capability: Capability | None = None
    held_out_loss: HeldOutLoss | None = None
    triggers: Triggers | None = None
    data: DataLimits | None = None
    replies: Replies = Replies()

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not self.traits and not (self.capability or self.held_out_loss or self.data):
            raise ValueError("limits nothing: name a trait, a capability, a loss or the data")
        if self.coherence and not self.judged:
            raise ValueError("`coherence` is that of judged replies; no trait has a `score`")
        if self.data and not self.traits:
            raise ValueError("`data` is screened for the traits; name one")
        return self

    @property
    def judged(self) -> tuple[str, ...]:
        """The traits whose replies are judged."""
        return tuple(name for name, one in self.traits.items() if one.score)
