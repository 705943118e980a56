"""What a lens study found, as values that print, save and compare."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from guardrail.interpret.forms import Form
from guardrail.interpret.lens.prompts import Condition
from guardrail.statistics.intervals import Estimate

Gold: TypeAlias = Literal["dataset", "own"]
"""What counts as a hit: the item's answer, or the model's own final token."""
Pairing: TypeAlias = Literal["paper", "dataset", "own"]
"""Golds with and without persona: the paper takes dataset and own; the others take one for both."""
Kind: TypeAlias = Literal["logit", "tuned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """S and its companions over the last `share` of layers; means are over all items, zeros included.

    normalised: S by its bound, in [0, 1]. without_final: S of the other layers. ascending: with weights that
    grow with depth, by their bound. hit_rate: items with a hit. first_hit: mean depth l / L of the first hit.
    """

    share: float
    bound: float
    mean: Estimate
    median: float
    normalised: Estimate
    without_final: Estimate
    ascending: Estimate
    hit_rate: Estimate
    first_hit: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One condition under one gold. by_layer: the share of items with a hit at each layer."""

    condition: Condition
    gold: Gold
    scores: tuple[Score, ...]
    by_layer: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """S with the persona less S under `against`, of the same items.

    by_share: over the last 20 to 100 % of layers. by_band: what each further fifth of layers adds.
    alone: by_share for items that need no persona; None if there are fewer than two.
    """

    against: Condition
    pairing: Pairing
    by_share: tuple[Estimate, ...]
    by_band: tuple[Estimate, ...]
    alone: tuple[Estimate, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LensResult:
    """One model, one lens, one task. form and notes: how items were asked, and what is unusual about that.

    needing: items that need the persona. several: answers of several tokens. accuracy: items whose answer
    is the model's final token, by condition. divergence: mean KL(output || lens) at each layer, in nats,
    with the persona. changed: items whose final token the persona changes.
    """

    model: str
    lens: Kind
    task: str
    layers: int
    items: int
    needing: int
    several: int
    rejected: dict[str, str]
    accuracy: dict[Condition, Estimate]
    changed: Estimate
    measured: tuple[Measured, ...]
    contrasts: tuple[Contrast, ...]
    divergence: tuple[float, ...]
    form: Form = "text"
    notes: tuple[str, ...] = ()

    def score(self, condition: Condition, gold: Gold, share: float) -> Score:
        """One of the scores."""
        found = next(m for m in self.measured if (m.condition, m.gold) == (condition, gold))
        return next(score for score in found.scores if score.share == share)

    def contrast(self, against: Condition, pairing: Pairing) -> Contrast:
        """One of the contrasts."""
        return next(c for c in self.contrasts if (c.against, c.pairing) == (against, pairing))

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
