"""Means and correlations of more rows than memory holds: they are added in blocks, in float64.

Intervals are by formula, because rows that are gone cannot be resampled: Student's for means, Fisher's
transformation for correlations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from guardrail.statistics.intervals import TAIL, Estimate, Numbers

FEWEST = 4
"""The fewest rows for the interval of a correlation."""


@dataclass(slots=True)
class Stream:
    """Sums over the rows so far: their number, the means [columns], and the products [columns, columns] of
    deviations from the means (Chan, Golub and LeVeque 1983)."""

    count: int = 0
    means: Numbers = field(default_factory=lambda: np.zeros(0))
    products: Numbers = field(default_factory=lambda: np.zeros((0, 0)))

    @classmethod
    def of(cls, blocks: Iterable[Numbers]) -> Self:
        """All blocks [rows, columns]; rows with a NaN are left out."""
        found = cls()
        for block in blocks:
            found.add(block[np.isfinite(block).all(axis=1)])
        return found

    def add(self, block: Numbers) -> None:
        """Add rows [rows, columns]."""
        if not len(block):
            return
        if not self.count:
            self.means, self.products = np.zeros(block.shape[1]), np.zeros((block.shape[1],) * 2)
        means = block.mean(axis=0)
        apart, total = means - self.means, self.count + len(block)
        rest = block - means
        self.products = (
            self.products + rest.T @ rest + np.outer(apart, apart) * self.count * len(block) / total
        )
        self.means = self.means + apart * len(block) / total
        self.count = total

    def mean(self, column: int) -> Estimate | None:
        """The mean of a column, with Student's 95 % interval; None for fewer than two rows."""
        from scipy.special import stdtrit

        if self.count < 2:
            return None
        error = self.deviation(column) / np.sqrt(self.count)
        half = float(stdtrit(self.count - 1, 1 - TAIL) * error)
        middle = float(self.means[column])
        return Estimate(middle, middle - half, middle + half)

    def deviation(self, column: int) -> float:
        """The standard deviation of a column."""
        return float(np.sqrt(self.products[column, column] / (self.count - 1)))

    def correlation(self, first: int, second: int) -> Estimate | None:
        """Pearson's r of two columns, with Fisher's 95 % interval; None for few rows, or constant ones."""
        if self.count < FEWEST:
            return None
        size = float(np.sqrt(self.products[first, first] * self.products[second, second]))
        if size <= 1e-12 * self.count:
            return None
        r = float(np.clip(self.products[first, second] / size, -1, 1))
        half = 1.959964 / np.sqrt(self.count - 3)
        # at r = 1 the transformation is infinite, and so is its inverse's argument
        middle = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
        return Estimate(r, min(r, float(np.tanh(middle - half))), max(r, float(np.tanh(middle + half))))
