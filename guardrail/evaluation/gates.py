"""Pass or fail criteria for an evaluation. A gate passes only if the whole interval meets the demand.

A sample that is too small to be conclusive therefore fails.
"""

from __future__ import annotations

from collections.abc import Mapping

from guardrail.errors import ConfigError
from guardrail.evaluation.results import DetectorResult, Gate, TraitResult
from guardrail.statistics.intervals import Estimate


def least_auroc(traits: Mapping[str, TraitResult], demand: float) -> list[Gate]:
    """One gate per trait: the lower end of the interval must reach `demand`."""
    found = {name: t.detection.auroc if t.detection else None for name, t in traits.items()}
    return [_gate("min-auroc", name, demand, one, above=True) for name, one in found.items()]


def most_fpr(detectors: Mapping[str, DetectorResult], demand: float) -> list[Gate]:
    """One gate per enforced policy (or calibrated probe): the upper end of the interval decides.

    Raises ConfigError if there are neither policies nor a calibration, and so no threshold to measure.
    """
    live = {n: d for n, d in detectors.items() if d.source != "data" and d.mode == "enforce"}
    if not live:
        raise ConfigError("--max-fpr needs thresholds: pass --policies or --calibration")
    return [_gate("max-fpr", name, demand, one.fpr, above=False) for name, one in live.items()]


def _gate(name: str, of: str, demand: float, found: Estimate | None, *, above: bool) -> Gate:
    if found is None:
        return Gate(name=name, of=of, demand=demand, found=None, verdict="not measured")
    passed = found.low >= demand if above else found.high <= demand
    failed = found.high < demand if above else found.low > demand
    return Gate(
        name=name,
        of=of,
        demand=demand,
        found=found,
        verdict="passed" if passed else "failed" if failed else "inconclusive",
    )
