"""Turns a threshold from a policy file into a projection."""

from __future__ import annotations

from collections.abc import Callable

from guardrail.calibration.benign import BenignReplies, Tail
from guardrail.calibration.slices import Edge, Populations
from guardrail.errors import CalibrationError
from guardrail.policy.model import Condition, FprThreshold, Monitor, PercentileThreshold, RawThreshold
from guardrail.vectors.values import FLOAT32_MAX


def threshold_number(condition: Condition) -> float | None:
    """The threshold as a number, or None if it needs a calibration."""
    value = condition.threshold
    if isinstance(value, RawThreshold):
        return value.raw
    return float(value) if isinstance(value, int | float) else None


def finite(threshold: float) -> float:
    """The threshold. Raises CalibrationError if float32 cannot hold it: no score could ever reach it."""
    if not abs(threshold) <= FLOAT32_MAX:
        raise CalibrationError("the threshold is out of range under this calibration")
    return threshold


def raw_threshold(condition: Condition, known: Populations | None) -> Edge:
    """The threshold as a projection. Raises CalibrationError if a calibration is missing or too small."""
    value = condition.threshold
    if isinstance(value, RawThreshold):
        return Edge(value.raw)
    if known is None:
        missing = f"needs a calibration of `{condition.trait}` at this layer"
        raise CalibrationError(f"{missing}: set `calibration`, or write {{raw: ...}}")
    return _edge(condition, known.benign.mean, known.benign.sd, lambda _: known)


def raw_reply_threshold(condition: Condition, monitor: Monitor, replies: BenignReplies | None) -> float:
    """The threshold of a response policy as a projection.

    A number counts standard deviations of single benign reply tokens. A rate or percentile refers to the
    extreme of the running statistic in each benign reply. Raises CalibrationError if that is missing.
    """
    value = condition.threshold
    if isinstance(value, RawThreshold):
        return value.raw
    if replies is None:
        missing = f"needs a calibration with benign replies of `{condition.trait}` at this layer"
        raise CalibrationError(f"{missing}; add one, or write {{raw: ...}}")

    def extremes(tail: Tail) -> Populations:
        return Populations(replies.extremes(monitor.key, tail))

    return _edge(condition, replies.mean, replies.sd, extremes).projection


def _edge(condition: Condition, mean: float, sd: float, spread: Callable[[Tail], Populations]) -> Edge:
    """The threshold as a projection. `spread` gives the values that a rate or a percentile refers to."""
    value = condition.threshold
    tail: Tail = "upper" if condition.fires == "above" else "lower"
    if isinstance(value, FprThreshold):
        return spread(tail).conformal(value.fpr, tail)
    if isinstance(value, PercentileThreshold):
        return spread(tail).percentile(value.percentile, tail)
    assert isinstance(value, int | float), value
    return Edge(mean + float(value) * sd)
