"""What personas do to accuracy, as values that print and save."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from guardrail.interpret.accuracy.items import Item
from guardrail.interpret.accuracy.prompts import Scoring
from guardrail.interpret.forms import Form
from guardrail.statistics.intervals import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A persona against none, on the same items.

    difference: of the accuracies. changed: items that are answered otherwise; gained and lost: those among
    them that became right or wrong. probability: mean change of the right option's probability. p: McNemar's
    exact test of gained against lost; q: p adjusted for the number of personas.
    """

    difference: Estimate
    changed: Estimate
    gained: int
    lost: int
    probability: Estimate
    p: float
    q: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonaResult:
    """Accuracy under one persona. letters: how often the first, second, ... option is chosen.

    effect: None for no persona. answers: the index of the option chosen of each item.
    """

    name: str
    text: str
    accuracy: Estimate
    by_subject: dict[str, Estimate]
    letters: tuple[float, ...]
    effect: Effect | None
    answers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyResult:
    """All personas of one model; the first is none. notes: what is unusual about its prompts."""

    model: str
    form: Form
    scoring: Scoring
    items: tuple[Item, ...]
    chance: float
    personas: tuple[PersonaResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> list[Item]:
        """The items of which not all personas choose the same option."""
        answers = zip(*(one.answers for one in self.personas), strict=True)
        return [item for item, chosen in zip(self.items, answers, strict=True) if len(set(chosen)) > 1]

    def as_json(self) -> dict[str, Any]:
        """Plain values; of the items only how many there are."""
        found = asdict(self)
        return found | {"items": len(self.items), "changed": len(self.changed)}
