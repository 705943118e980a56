"""What heads attend to, and what scaling some of them changes, as values that print and save."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Self

from guardrail.errors import ConfigError
from guardrail.interpret.forms import Form
from guardrail.statistics.intervals import Estimate

ALPHA = 0.05
"""The false-discovery rate at which heads are named."""
SHAPE = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """A query head: its layer from 1, its place in the layer from 0. Written `12.3`."""

    layer: int
    head: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ConfigError for anything but LAYER.HEAD."""
        if not (found := SHAPE.fullmatch(text)):
            raise ConfigError(f"`{text}` is not a head: write LAYER.HEAD, such as 12.3")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadResult:
    """Shares of a head's value-weighted attention from the answer position, for one group.

    word: on the group's words. neutral: on neutral words in their place. elsewhere: on a token of the rest of
    the prompt, at the mean. effect: word less neutral in pooled standard deviations over words (Hedges' g),
    with p by exchanging words and q adjusted for all heads and groups. over_controls: word less elsewhere in
    standard deviations over words, with its p and q by changing signs.
    """

    head: Head
    group: str
    word: Estimate
    neutral: float
    elsewhere: float
    effect: float
    p: float
    q: float
    over_controls: float
    over_p: float
    over_q: float

    @property
    def found(self) -> bool:
        """Whether it attends to the group more than to neutral words and to the rest of the prompt."""
        return self.q < ALPHA and self.effect > 0 and self.over_q < ALPHA and self.over_controls > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Concentration:
    """How much of a group's excess (word less neutral, where positive) few heads hold.

    top: the share of the strongest twentieth of all heads. found: heads that are named; fewer: heads with
    less attention to the group than to neutral words, at the same false-discovery rate.
    """

    heads: int
    found: int
    fewer: int
    top: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadStudy:
    """All heads of one model. words: those compared, by group. rejected: words left out, and why.

    notes: what is unusual about the prompts of this model.
    """

    model: str
    form: Form
    layers: int
    heads: int
    words: dict[str, tuple[str, ...]]
    rejected: dict[str, str]
    templates: tuple[str, ...]
    contexts: int
    results: tuple[HeadResult, ...]
    concentration: dict[str, Concentration]
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> list[str]:
        """The groups that were compared with neutral words."""
        return list(self.concentration)

    def strongest(self, group: str | None = None) -> list[HeadResult]:
        """Heads that attend to a group beyond both controls, the largest excess first."""
        named = [one for one in self.results if one.found and group in (None, one.group)]
        return sorted(named, key=lambda one: one.neutral - one.word.value)

    def top(self, count: int) -> list[Head]:
        """The strongest heads of any group, without repetitions."""
        return list(dict.fromkeys(one.head for one in self.strongest()))[:count]

    def as_json(self) -> dict[str, Any]:
        """Plain values; heads as they are written on the command line."""
        results = [asdict(one) | {"head": str(one.head), "found": one.found} for one in self.results]
        return asdict(self) | {"results": results}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """Two measures before and after heads are scaled, and their differences over the same items.

    effect: how far the answers' probabilities move with a group's word, in total variation from the mean over
    neutral words, less what neutral words move among themselves. accuracy: over all words.
    """

    effect: dict[str, Estimate]
    effect_change: dict[str, Estimate]
    accuracy: Estimate
    accuracy_change: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationResult:
    """heads, times factor. random: as many other heads of the same layers, drawn `len(random)` times."""

    heads: tuple[Head, ...]
    factor: float
    items: int
    effect: dict[str, Estimate]
    accuracy: Estimate
    scaled: Scaled
    random: tuple[Scaled, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values; heads as they are written on the command line."""
        return asdict(self) | {"heads": [str(head) for head in self.heads]}
