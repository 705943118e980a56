"""Pairs of conversations, one that brings a trait out and one that does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict

from guardrail.errors import ConfigError
from guardrail.extract.layers.sweep import Questions
from guardrail.extract.subject import Subject
from guardrail.files.json_lines import parse_lines
from guardrail.files.records import messages_from_json
from guardrail.interpret.patching.beginnings import shared_beginnings
from guardrail.interpret.patching.pairs import LONG, LONGEST, Reject
from guardrail.traits import TraitDefinition
from guardrail.types import Message

Side: TypeAlias = "str | list[dict[str, Any]]"
SIDES = ("source", "target")


@dataclass(frozen=True, slots=True)
class Contrast:
    """source brings the trait out, target does not. Contrasts of one group are resampled together."""

    name: str
    group: str
    source: tuple[Message, ...]
    target: tuple[Message, ...]


class ContrastLine(BaseModel):
    """One line of a file of contrasts: each side is a prompt, or a list of messages."""

    model_config = ConfigDict(extra="forbid")
    source: Any
    target: Any
    name: str = ""
    group: str = ""


def load_contrasts(path: Path) -> list[Contrast]:
    """The contrasts in a JSON Lines file. Raises ConfigError with every bad line, and if there is none."""
    if not (lines := parse_lines(path, ContrastLine, _check)):
        raise ConfigError(f"{path}: the file contains no pair")
    return [
        Contrast(
            line.name or place, line.group or place, _conversation(line.source), _conversation(line.target)
        )
        for place, line in lines
    ]


def _check(line: ContrastLine) -> None:
    for side in SIDES:
        if not isinstance(value := getattr(line, side), str | list) or not value:
            raise ValueError(f"`{side}` must be a text or a list of messages, and not be empty")
    if _conversation(line.source) == _conversation(line.target):
        raise ValueError("`source` and `target` are the same")


def _conversation(side: Side) -> tuple[Message, ...]:
    return (Message("user", side),) if isinstance(side, str) else messages_from_json(side)


def contrasts_of(definition: TraitDefinition) -> list[Contrast]:
    """Evaluation questions with an instruction that asks for the trait, and with the one that forbids it.

    No vector was made from these questions. The first ones go through all questions, with the pairs of
    instructions taking turns.
    """
    asked, turns = Questions.of(definition), len(definition.pairs(held_out=True))
    against = {(prompt.question, prompt.instruction): prompt.messages for prompt in asked.negative}
    order = sorted(asked.positive, key=lambda p: ((p.instruction - p.question) % turns, p.question))
    return [
        Contrast(
            f"question {one.question + 1}, instruction {one.instruction + 1}",
            f"question {one.question + 1}",
            one.messages,
            against[one.question, one.instruction],
        )
        for one in order
    ]


@dataclass(frozen=True, slots=True)
class Asked:
    """A contrast as token ids: both prompts, followed by what both greedy replies begin with.

    width: how many of the last tokens belong to the reply or are the prompt's last one.
    """

    contrast: Contrast
    source: tuple[int, ...]
    target: tuple[int, ...]
    width: int

    @property
    def columns(self) -> range:
        """The last prompt token and all later ones, from the end."""
        return range(-self.width, 0)


def asked(subject: Subject, contrasts: Sequence[Contrast]) -> tuple[list[Asked], list[Reject]]:
    """The contrasts as a model is asked them, and those that are too long for it.

    Raises PromptError if the chat template refuses a conversation.
    """
    rows = [(subject.render(one.source).ids, subject.render(one.target).ids) for one in contrasts]
    fits = [max(map(len, both)) + LONGEST <= subject.longest for both in rows]
    fitting = [both for both, fit in zip(rows, fits, strict=True) if fit]
    left = [Reject(one.name, LONG) for one, fit in zip(contrasts, fits, strict=True) if not fit]
    kept = [one for one, fit in zip(contrasts, fits, strict=True) if fit]
    begun = shared_beginnings(subject, fitting)
    found = [
        Asked(one, (*source, *begin), (*target, *begin), 1 + len(begin))
        for one, (source, target), begin in zip(kept, fitting, begun, strict=True)
    ]
    return found, left
