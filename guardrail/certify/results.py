"""The results of a comparison, as values that can be written as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.certify.criteria import Verdict
from guardrail.policy.rates import Rate
from guardrail.statistics.intervals import Estimate
from guardrail.types import Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How the candidate's scores of a trait follow from the reference's: slope * score + offset.

    `rank` is Spearman's correlation; `largest` the largest difference, in benign standard deviations.
    """

    trait: str
    layer: int
    n: int
    slope: Estimate
    offset: Estimate
    rank: Estimate
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How many verdicts of `n` prompts change."""

    n: int
    changed: int
    share: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCheck:
    """How often a policy fires on benign prompts under both; `policy` is empty for all that are enforced.

    `slice`: the slice that the `n` prompts are of; empty for the benign sample.
    """

    policy: str
    stated: Rate | None
    reference: Estimate
    candidate: Estimate
    kept: bool
    n: int
    slice: str = ""

    @property
    def name(self) -> str:
        """The policy, and where it fires."""
        where = f" on the slice `{self.slice}`" if self.slice else ""
        return f"{self.policy or 'all enforced policies'}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibrated:
    """New thresholds from `calibrated` benign prompts, and their rates on the `tested` others.

    Slices that set no threshold are tested whole. `changes` are of all prompts but the calibrated ones.
    `problem`: why there are no thresholds.
    """

    calibrated: int
    tested: int
    rates: tuple[RateCheck, ...] = ()
    changes: Changes | None = None
    problem: str | None = None

    @property
    def kept(self) -> bool:
        """Whether all rates are kept."""
        return self.problem is None and all(one.kept for one in self.rates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What changes between two configurations. `others` are the prompts that are not benign, if any.

    `unevaluated`: prompts that the candidate did not evaluate, and the reference did.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    reference: Configuration
    candidate: Configuration
    differences: tuple[str, ...]
    unevaluated: int
    agreement: tuple[Agreement, ...]
    all: Changes
    benign: Changes
    others: Changes | None
    rates: tuple[RateCheck, ...]
    recalibrated: Recalibrated | None = None
    policies: tuple[str, ...] = ()
    not_compared: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
