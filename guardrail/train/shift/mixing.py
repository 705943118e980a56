"""What a shift along one trait does to the projections on the others, so that echoes can be taken out.

Ratios r[a, b]: how far the projection on a moves when b moves by 1. Where the definition of b is at hand, the
base itself says so: it is asked for b by b's own system prompts, and r[a, b] = m[a, b] / m[b, b] with the
mean differences m to the same questions without a system prompt. Elsewhere the cosine of the vectors stands
in, which is what a move along the vector of b and nothing else would do. Orthogonalised vectors have cosines
of 0 and move together all the same: in the built-in model, sycophancy prompts move evil by .31 as much.

arXiv 2507.21509 (Fig. 20) has correlations of up to .985 between a trait's shift and another trait's score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from guardrail.statistics.intervals import Numbers, column_means
from guardrail.train.shift.results import Overlap

HALF = 0.5
"""The share of a shift that has to remain for two traits to be told apart."""
WORST = 30.0
"""The condition number from which on the ratios cannot be solved for what each trait did by itself."""


@dataclass(frozen=True, slots=True)
class Mixing:
    """ratios, cosines: [L + 1, traits, traits]. asked: [L + 1, traits], m[b, b]; NaN if b was not asked."""

    names: tuple[str, ...]
    ratios: Numbers = field(repr=False)
    cosines: Numbers = field(repr=False)
    asked: Numbers = field(repr=False)

    @classmethod
    def of(
        cls, names: Sequence[str], units: Numbers, asking: Mapping[str, Numbers], plain: Mapping[str, Numbers]
    ) -> Self:
        """From the base's projections [n, L + 1, traits] when asked for a trait, and on plain prompts."""
        cosines = units @ units.swapaxes(1, 2)
        ratios, asked = cosines.copy(), np.full(units.shape[:2], np.nan)
        for b, name in enumerate(names):
            if name in asking:
                moved = asking[name].mean(axis=0) - plain[name].mean(axis=0)
                asked[:, b] = moved[:, b]
                # a trait that its own prompts hardly move says nothing about the others
                told = moved[:, b] > plain[name][:, :, b].std(axis=0)
                ratios[told, :, b] = moved[told] / moved[told, b, None]
        return cls(tuple(names), ratios, cosines, asked)

    def own_weights(self, layer: int) -> Numbers | None:
        """[traits, traits]: weights of the projections that give what each trait did by itself.

        Shifts s = R o mix the traits' own moves o, so o = R^-1 s. None if R cannot be inverted.
        """
        ratios = self.ratios[layer]
        return np.linalg.inv(ratios) if np.linalg.cond(ratios) < WORST else None

    def overlaps(self, place: int, layer: int, moved: Numbers) -> tuple[Overlap, ...]:
        """Every trait beside the one at `place`; moved: [n, traits], each prompt's shift at the layer."""
        own, ratios = moved[:, place], self.ratios[layer, place]
        remaining = own[:, None] - moved * ratios
        # positive where more than half of the shift remains; a mean over prompts, so that it has an interval
        surplus = np.sign(own.mean()) * (remaining - HALF * own[:, None])
        pairs = list(zip(column_means(remaining), column_means(surplus), strict=True))
        return tuple(
            Overlap(
                other=name,
                cosine=float(self.cosines[layer, place, b]),
                ratio=float(ratios[b]),
                remaining=pairs[b][0],
                apart=pairs[b][1].low > 0,
            )
            for b, name in enumerate(self.names)
            if b != place
        )
