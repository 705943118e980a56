"""Slices: benign prompts that differ from the sample in a known way, and thresholds that hold there too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from guardrail.calibration.benign import Benign, Tail
from guardrail.calibration.evidence import Achieved
from guardrail.errors import CalibrationError

BENIGN = "benign"
"""What the benign sample is called beside slices; no slice may have this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One slice of a calibration. Counts are of distinct prompts.

    `probes` are as in the calibration: of all prompts, or, if thresholds hold for the slice, of those that
    are not held out. A probe that has nothing to read in them (no tool results) is missing. `achieved`: how
    often thresholds fired on all prompts, or on the held-out ones.
    """

    source: str
    source_sha256: str
    prompts: int
    duplicates: int
    skipped: int
    probes: Mapping[str, Mapping[int, Benign]] = field(repr=False)
    achieved: tuple[Achieved, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """A threshold as a projection, and the slice that set it; None for the benign sample."""

    projection: float
    slice: str | None = None


@dataclass(frozen=True, slots=True)
class Populations:
    """What a threshold on one probe must hold for: the benign sample, and slices by name."""

    benign: Benign
    slices: Mapping[str, Benign] = field(default_factory=dict[str, Benign])

    @property
    def fewest(self) -> int:
        """The number of prompts of the smallest population."""
        return min(one.n for one in (self.benign, *self.slices.values()))

    def conformal(self, fpr: float, tail: Tail = "upper") -> Edge:
        """The threshold that keeps the rate in every population: the strictest of `Benign.conformal`.

        Raises CalibrationError, which names the slice, if one is too small for the rate.
        """
        return self._strictest(tail, lambda one: one.conformal(fpr, tail))

    def percentile(self, percent: float, tail: Tail = "upper") -> Edge:
        """The strictest of the populations' percentiles, counted from the other end in the lower tail."""
        place = percent if tail == "upper" else 100 - percent
        return self._strictest(tail, lambda one: one.percentile(place))

    def _strictest(self, tail: Tail, threshold: Callable[[Benign], float]) -> Edge:
        """Of equal thresholds the benign sample's, then that of the first slice."""
        edges = [Edge(threshold(self.benign))]
        for name, one in self.slices.items():
            try:
                edges.append(Edge(threshold(one), name))
            except CalibrationError as error:
                raise CalibrationError(f"slice `{name}`: {error}") from error
        strictest = max if tail == "upper" else min
        return strictest(edges, key=lambda edge: edge.projection)
