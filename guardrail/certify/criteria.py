"""When two configurations count as the same. Fixed beforehand; the reasons are in this package's README."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from guardrail.policy.rates import Rate
from guardrail.statistics.intervals import TAIL, Estimate

Verdict: TypeAlias = Literal["PASS", "RECALIBRATE", "FAIL"]
CHANGED = 0.01
"""The share of verdicts that may change."""
RANK = 0.95
"""The least rank correlation at which a trait still ranks prompts alike."""


def fewest() -> int:
    """The fewest benign prompts with which an unchanged set of verdicts can be shown to be equivalent."""
    return math.ceil(math.log(TAIL) / math.log1p(-CHANGED))


def equivalent(share: Estimate) -> bool:
    """Whether a share above the margin is excluded: a one-sided test at 2.5 %."""
    return share.high <= CHANGED


def different(share: Estimate) -> bool:
    """Whether a share within the margin is excluded."""
    return share.low > CHANGED


def alike(rank: Estimate) -> bool:
    """Whether a trait still ranks prompts alike."""
    return rank.low >= RANK


def kept(candidate: Estimate, reference: Estimate, stated: Rate | None) -> bool:
    """Whether a false-positive rate is not shown to be above what was stated, or fires at the reference."""
    most = max(reference.high, stated.high if stated else 0.0)
    return candidate.low <= most
