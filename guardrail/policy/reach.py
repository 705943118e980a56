"""Whether what a policy is to find can reach its threshold. Pure maths, by what is known without a model.

Few benign prompts cannot show a low rate: the threshold then lies beyond all of them, wherever that is, and
a policy that never fires looks like one with nothing to find.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from guardrail.calibration.benign import Tail
from guardrail.calibration.values import Calibration
from guardrail.policy.model import Monitor
from guardrail.policy.rates import benign_of
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.vectors.values import TraitVectors

USUAL = 0.01
"""The false-positive rate that is meant where none is named."""
SELDOM = 0.1
"""The share of prompts with the trait below which a policy may as well be off."""


def doubt(
    condition: CompiledCondition,
    calibration: Calibration | None,
    vectors: TraitVectors,
    monitor: Monitor | None = None,
) -> str | None:
    """Why this threshold may never be reached, in one sentence; None without a reason to think so."""
    found = () if monitor else reached(condition, vectors)
    share = _of(found, f"prompts with `{condition.trait}` that the fit held out") if found else ""
    if text := _too_few(condition, calibration, monitor, share):
        return text
    if found and sum(found) < SELDOM * len(found):
        return f"the threshold is too high: {share} it; a higher rate, or more benign prompts, lowers it"
    return None


def doubts(rule: Rule, calibration: Calibration | None, vectors: TraitVectors) -> list[str]:
    """The first doubt about a policy, if there is any: one sentence is enough."""
    found = (doubt(condition, calibration, vectors, rule.monitor) for condition in rule.conditions)
    return [f"{rule.id}: {text}" for text in found if text][:1]


def reached(condition: CompiledCondition, vectors: TraitVectors) -> tuple[bool, ...]:
    """For each prompt with the trait that was held out of the probe's fit, whether it reaches the threshold.

    Empty if the vector file does not know. Fits have one scale: harmless prompts have mean 0 and standard
    deviation 1.
    """
    fit, vector = vectors.provenance.fits.get(condition.trait), vectors.get(condition.trait)
    if fit is None or vector is None or condition.layer != vector.layer or condition.fires == "below":
        return ()
    below = bisect_left(fit.positives, condition.raw)
    return (False,) * below + (True,) * (len(fit.positives) - below)


def enough(fpr: float) -> int:
    """The fewest benign prompts with which a threshold at this rate is not beyond all of them."""
    return math.ceil(2 / fpr - 1 - 1e-9)


def shown(n: int) -> float:
    """The lowest rate whose threshold is not beyond all of n benign prompts, in two digits."""
    rate = 2 / (n + 1)
    digits = 1 - math.floor(math.log10(rate))
    return math.ceil(rate * 10**digits - 1e-9) / 10**digits


def _too_few(
    condition: CompiledCondition, calibration: Calibration | None, monitor: Monitor | None, share: str
) -> str | None:
    tail: Tail = "upper" if condition.fires == "above" else "lower"
    known = benign_of(condition, calibration, monitor, condition.slice, tail)
    needed = enough(condition.fpr or USUAL)
    if known is None or known.n >= needed:
        return None
    what = f"{known.n} benign {'replies' if monitor else 'prompts'}"
    what += f" of the slice `{condition.slice}`" if condition.slice else ""
    effect = f"and {share} it" if share else "and may be too high to find anything"
    if condition.fpr is not None:
        rate = f"a rate of {100 * condition.fpr:g} %"
        return (
            f"{what} are too few for {rate}: the threshold is beyond all of them, {effect}; calibrate on "
            f"at least {needed}, or set {{fpr: {shown(known.n):g}}}"
        )
    count = known.beyond(condition.raw, tail)
    if count > 1:
        return None
    verb = "reaches" if count else "reach"
    return f"{count} of {what} {verb} the threshold, {effect}; calibrate on at least {needed}"


def _of(found: Sequence[bool], what: str) -> str:
    return f"{sum(found)} of {len(found)} {what} {'reaches' if sum(found) == 1 else 'reach'}"
