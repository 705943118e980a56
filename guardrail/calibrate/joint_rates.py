"""Finds a rate per policy, so that the rate at which any of them fires is at most a target. Pure maths.

Every condition k asks for a rate w_k; one factor f multiplies all of them. A condition then holds for a
prompt whose rank among n + 1 prompts (1 = the strongest; ties count against it) is at most c_k(f), the
integer part of f w_k (n + 1) + o_k. A split-conformal threshold at the rate c_k / (n + 1) does the same.
The fixed offsets o_k in [0, 1) make conditions with equal rates step one after another.

Let F(f, S) be the prompts in S on which any policy fires at f. Ranks only fall when a prompt is removed, and
`any_of` and `all_of` are monotone in them, so |F(f, S)| <= |F(f, S without j)| + 1 for every j. Take the
largest f with |F(f, calibration)| <= B = floor(target (n + 1)) - 1. For each of n + 1 exchangeable prompts
left out in turn, that f is at most the largest one with |F(f, all)| <= B + 1, and every prompt that fires is
in that set: at most (B + 1) / (n + 1) <= target of them do. So P(any policy fires on a fresh benign prompt)
<= target, whatever the dependence between the policies. As with every conformal rate, the probability is
over calibration samples too. The cost is at most one prompt in n + 1 compared with the best possible. Rates
above 10 % come from percentiles, so they are exact only up to interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from guardrail.errors import CalibrationError


@dataclass(frozen=True, slots=True)
class Bar:
    """One condition: the calibration prompts' strengths [n] (greater fires sooner) and the rate asked for."""

    strengths: NDArray[np.floating] = field(repr=False)
    fpr: float


@dataclass(frozen=True, slots=True)
class Member:
    """One policy: its conditions, and whether all of them must hold."""

    policy: str
    bars: tuple[Bar, ...]
    require_all: bool = True


def _budget(n: int, target: float) -> int:
    """How many of n benign prompts the set may fire on. Raises CalibrationError if that is none."""
    budget = math.floor(target * (n + 1) + 1e-9) - 1
    if budget < 1:
        needed = math.ceil(2 / target - 1 - 1e-9)
        raise CalibrationError(f"a set rate of {target} needs at least {needed} benign prompts, not {n}")
    return budget


def joint_rates(members: Sequence[Member], target: float) -> list[tuple[float, ...]]:
    """For each policy the rates of its conditions, in the requested proportions.

    Raises CalibrationError if there are too few prompts for the target, or for a policy's share of it.
    """
    n = len(members[0].bars[0].strengths)
    factor = float(np.sort(entering_factors(members))[_budget(n, target)])
    return [
        tuple(_rate(member, bar, offset, factor, n) for bar, offset in zip(member.bars, own, strict=True))
        for member, own in zip(members, offsets(members), strict=True)
    ]


def offsets(members: Sequence[Member]) -> list[tuple[float, ...]]:
    """For each policy the offsets of its conditions; the first in the file steps first."""
    total = sum(len(member.bars) for member in members)
    left = iter(range(total - 1, -1, -1))
    return [tuple(next(left) / total for _ in member.bars) for member in members]


def entering_factors(members: Sequence[Member]) -> NDArray[np.float64]:
    """[n]: the least factor at which any policy fires on each calibration prompt."""
    pairs = zip(members, offsets(members), strict=True)
    return np.min([_policy_factors(member, own) for member, own in pairs], axis=0)


def _policy_factors(member: Member, own: Sequence[float]) -> NDArray[np.float64]:
    factors = [
        (ranks(bar.strengths) - offset) / (bar.fpr * (len(bar.strengths) + 1))
        for bar, offset in zip(member.bars, own, strict=True)
    ]
    return np.max(factors, axis=0) if member.require_all else np.min(factors, axis=0)


def ranks(strengths: NDArray[np.floating]) -> NDArray[np.int64]:
    """[n]: how many prompts are at least as strong, including the prompt itself."""
    ascending = np.sort(strengths)
    return len(strengths) - np.searchsorted(ascending, strengths, side="left")


def _rate(member: Member, bar: Bar, offset: float, factor: float, n: int) -> float:
    """The largest rate strictly below the factor that puts one prompt too many into the set."""
    count = min(math.ceil(factor * bar.fpr * (n + 1) + offset - 1e-9) - 1, n)
    if count < 1:
        rate = factor * bar.fpr
        raise CalibrationError(
            f"{member.policy}: its share of the set's rate is {rate:.2g}, which needs more than "
            f"{math.ceil(1 / rate) - 1} benign prompts, not {n}; collect more, or ask for a larger share"
        )
    return decimal_rate(count, n)


def decimal_rate(count: int, n: int) -> float:
    """The shortest decimal that `conformal_rank` resolves to `count` prompts beyond the threshold, of n."""
    for digits in range(1, 16):
        rate = math.ceil(count / (n + 1) * 10**digits - 1e-9) / 10**digits
        if rate * (n + 1) < count + 1 - 1e-6:
            return rate
    return count / (n + 1)
