"""Tests whether the judge's scores show a trait: a difference with an interval, and pairs beyond chance.

A filter alone proves nothing: a judge that answers at random passes a quarter of all pairs. So positive
replies must score higher than negative ones, and the filter must keep more pairs than it does with the two
sides shuffled (a permutation test). Both go by question, because replies to one question are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guardrail.statistics.intervals import Estimate, Numbers, clustered_mean
from guardrail.vectors.provenance import Induction

SHUFFLES = 1000
LEVEL = 0.01
"""The largest p of the permutation test; `difference` has a 95 % interval."""
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScores:
    """The scores of pairs of replies. question: [n]; scores: [n, 2], positive and negative, NaN if unknown.

    `able`: [n, 2, 2], whether the filter would take each reply as the positive or the negative one of a pair.
    """

    question: NDArray[np.intp]
    scores: Numbers
    able: Flags

    @property
    def kept(self) -> int:
        """The number of pairs that the filter keeps."""
        return int((self.able[:, 0, 0] & self.able[:, 1, 1]).sum())

    @property
    def constant(self) -> float | None:
        """The score that every scored reply has, if there is only one."""
        known = self.scores[np.isfinite(self.scores)]
        return float(known[0]) if len(known) > 1 and np.ptp(known) == 0 else None


def induction(pairs: PairScores, seed: int = 0) -> Induction:
    """Both tests."""
    shuffled = _shuffled(pairs, np.random.default_rng(seed))
    return Induction(
        difference=_difference(pairs),
        chance=round(float(shuffled.mean()), 2),
        chance_high=float(np.quantile(shuffled, 1 - LEVEL, method="higher")),
        p=float((1 + (shuffled >= pairs.kept).sum()) / (1 + SHUFFLES)),
    )


def told_apart(found: Induction) -> bool:
    """Whether both tests are passed."""
    return found.difference is not None and found.difference.low > 0 and found.p <= LEVEL


def _difference(pairs: PairScores) -> Estimate | None:
    gaps = pairs.scores[:, 0] - pairs.scores[:, 1]
    known = np.isfinite(gaps)
    found = clustered_mean(gaps[known], pairs.question[known])
    # Student's interval over few questions is wider than what scores can differ by
    return found and Estimate(found.value, max(-100.0, found.low), min(100.0, found.high))


def _shuffled(pairs: PairScores, rng: np.random.Generator) -> NDArray[np.intp]:
    """[SHUFFLES]: the kept pairs if each question's replies are dealt out to the two sides at random."""
    kept = np.zeros(SHUFFLES, np.intp)
    for question in np.unique(pairs.question):
        replies = pairs.able[pairs.question == question].reshape(-1, 2)
        dealt = replies[rng.random((SHUFFLES, len(replies))).argsort(axis=1)]
        half = len(replies) // 2
        kept += (dealt[:, :half, 0] & dealt[:, half:, 1]).sum(axis=1)
    return kept
