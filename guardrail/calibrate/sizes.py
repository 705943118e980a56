"""Whether there are enough benign prompts for the rates that are asked for. Needs no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from guardrail.calibrate import proposals
from guardrail.calibrate.policy_file import PolicyFile
from guardrail.calibrate.sample import Sample, parts
from guardrail.errors import CalibrationError
from guardrail.policy.reach import USUAL
from guardrail.statistics.conformal import conformal_rank


@dataclass(frozen=True, slots=True)
class Size:
    """How many distinct prompts thresholds come from, and how many test them."""

    calibrated: int
    held_out: int

    @classmethod
    def of(cls, sample: Sample) -> Size:
        """Of a sample that was split."""
        return cls(len(sample.calibration), len(sample.held_out))

    @classmethod
    def at_most(cls, prompts: int, held_out: float) -> Size:
        """Of this many prompts, if none is a duplicate. Raises CalibrationError if they cannot be split."""
        kept = parts(prompts, held_out)
        return cls(kept, prompts - kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What is aimed at: for each policy, and for the set of all enforced ones."""

    fpr: float | None = None
    set_fpr: float | None = None

    @property
    def rate(self) -> float:
        """The rate of each trait and policy: what was asked for, or the default."""
        return next((asked for asked in (self.fpr, self.set_fpr) if asked is not None), USUAL)


def check_sizes(sizes: Mapping[str | None, Size], rates: Rates, policies: PolicyFile | None) -> None:
    """Raises CalibrationError or PolicyError if the number of prompts or the policies rule out a rate.

    sizes: of the benign sample under None, and of the slices that thresholds have to hold for.
    """
    if rates.set_fpr is not None and policies is None:
        raise CalibrationError("a rate for the whole set needs a policy file")
    for name, one in sizes.items():
        _check_size("" if name is None else f"slice `{name}`: ", one, rates, policies)
    if policies and rates.set_fpr is not None and (problems := proposals.not_rates(policies.policies)):
        raise policies.document.error(problems)


def _check_size(about: str, size: Size, rates: Rates, policies: PolicyFile | None) -> None:
    asked = rates.fpr is not None or rates.set_fpr is not None
    _check_rate(about, size, rates.rate, "" if asked else f"; {USUAL:g} is the default")
    if rates.set_fpr is not None:
        _check_rate(about, size, rates.set_fpr)
    elif policies and (problems := proposals.unsupported(policies.policies, size.calibrated, about)):
        raise policies.document.error(problems)


def _check_rate(about: str, size: Size, fpr: float, default: str = "") -> None:
    try:
        conformal_rank(size.calibrated, fpr)
    except CalibrationError as error:
        prompts = size.calibrated + size.held_out
        held_out = f"{size.held_out} of the {prompts} distinct prompts are held out (--held-out)"
        raise CalibrationError(f"{about}{error}: {held_out}{default}") from error
