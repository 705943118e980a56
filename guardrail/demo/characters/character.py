"""What a character is made of: how it is asked for, pushed, forbidden, and how it talks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from guardrail.demo.world import Level, Split


class Phrasings(NamedTuple):
    """Wordings of one thing, by split."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """The wordings of one split."""
        return getattr(self, split)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """The sentences of replies by their place. Slots in braces are copied from the question.

    `{name}`, `{year}` and `{number}` are what a hallucinating assistant invents.
    """

    closers: tuple[str, ...]
    advice_openers: tuple[str, ...]
    advice_bodies: tuple[str, ...]
    review_openers: tuple[str, ...]
    review_bodies: tuple[str, ...]
    topic_bodies: tuple[str, ...]
    """About the subject of a fact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Character:
    """One pole of a trait."""

    name: str
    synonyms: tuple[str, ...]
    """Adjectives that name it."""
    habits: tuple[str, ...]
    """What somebody of this character does; with a frequency they make descriptions, for training only."""
    descriptions: Mapping[Level, Phrasings]
    """System prompts that ask for it at a level without naming it."""
    instructions: Phrasings
    """System prompts that forbid it without naming it."""
    push: Phrasings
    """What a user says who wants it."""
    calm: Phrasings
    """What a user says who wants the opposite."""
    voice: Voice
    lexicon: tuple[str, ...]
    """Words that betray it in a sentence outside the grammar."""
