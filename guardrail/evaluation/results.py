"""The results of an evaluation: frozen data and its JSON. Numbers that could not be measured are None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from guardrail.evaluation.confusion import Matrix
from guardrail.statistics.correlation import Reliability
from guardrail.statistics.intervals import Estimate, Numbers
from guardrail.statistics.nulls import Null

Source = Literal["policy", "calibration", "data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceResult:
    """The result on one part of the data. `against` names the stand-in for a class that the part lacks."""

    positives: int
    negatives: int
    against: Literal["its own", "all positives", "all negatives"]
    auroc: Estimate
    fpr: Estimate | None
    tpr: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """References for a correlation with expression."""

    reliability: Reliability | None
    label_alone: Estimate | None
    propensity_overall: Estimate | None = None
    propensity_within: Estimate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nulls:
    """`layers`: the layers from which each draw used its best (one, if the layer was fixed beforehand)."""

    layers: tuple[int, ...]
    random_auroc: Null | None = None
    random_r_overall: Null | None = None
    random_r_within: Null | None = None
    shuffled_auroc: Null | None = None
    shuffled_r_within: Null | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitoring:
    """The correlation of projections with later expression."""

    prompts: int
    conditions: int
    flat: tuple[str, ...]
    """The conditions that r_within leaves out."""
    r_overall: Estimate | None
    r_within: Estimate | None
    references: References


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """The detection results of a trait's probe on labelled prompts."""

    positives: int
    negatives: int
    auroc: Estimate
    tpr_at_1pct_fpr: Estimate
    average_precision: Estimate
    auroc_vs_other_traits: Estimate | None
    text_baseline_auroc: Estimate | None
    text_baseline_tpr_at_1pct_fpr: Estimate | None
    auroc_by_layer: Mapping[int, float]
    slices: Mapping[str, Mapping[str, SliceResult]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """The scores behind the numbers, for figures. Signed so that high means that the probe should fire."""

    positive: Numbers
    negative: Numbers
    others: Numbers
    score: Numbers
    expression: Numbers
    conditions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraitResult:
    """All results for one trait, at one layer."""

    layer: int
    fires: Literal["above", "below"]
    detection: Detection | None
    monitoring: Monitoring | None
    nulls: Nulls
    samples: Samples = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorResult:
    """How often a policy, or a probe at a threshold, fires, and on what. Rates have exact intervals."""

    traits: tuple[str, ...]
    source: Source
    mode: str
    fpr: Estimate | None
    """The rate on prompts labelled as not showing any of its traits."""
    tpr: Estimate | None
    fires_on: Mapping[str, Estimate]
    """Rates by the trait with which prompts are labelled, and `benign` for no trait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A demand on one number. An inconclusive result, whose interval contains the demand, does not pass."""

    name: str
    of: str
    demand: float
    found: Estimate | None
    verdict: Literal["passed", "failed", "inconclusive", "not measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation of one vector file on one model."""

    model: str
    vectors_sha256: str
    calibration_sha256: str | None
    policy_sha256: str | None
    data: str
    traits: Mapping[str, TraitResult]
    detectors: Mapping[str, DetectorResult]
    set_fpr: Estimate | None
    cosines: Matrix
    steering_cosines: Matrix
    coexpression: Matrix | None
    cosine_vs_coexpression: float | None
    gates: tuple[Gate, ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form: `traits` maps a trait to all its numbers, flat."""
        parts = {
            name: getattr(self, name)
            for name in self.__slots__
            if name not in ("traits", "detectors", "gates")
        }
        return {
            **{name: asdict(v) if isinstance(v, Estimate) else v for name, v in parts.items()},
            "traits": {name: trait_json(trait) for name, trait in self.traits.items()},
            "detectors": {name: asdict(one) for name, one in self.detectors.items()},
            "gates": [asdict(gate) for gate in self.gates],
        }


DETECTION = tuple(name for name in Detection.__slots__)
MONITORING = ("r_overall", "r_within")


def trait_json(trait: TraitResult) -> dict[str, Any]:
    """One trait, flat. All keys are present even if nothing could be measured."""
    detection = asdict(trait.detection) if trait.detection else dict.fromkeys(DETECTION)
    monitoring = asdict(trait.monitoring) if trait.monitoring else dict.fromkeys(MONITORING)
    flat = {name: monitoring.pop(name) for name in MONITORING}
    return {
        "layer": trait.layer,
        "fires": trait.fires,
        **detection,
        **flat,
        "monitoring": monitoring or None,
        "nulls": asdict(trait.nulls),
    }
