"""Detectors to evaluate: compiled policies, or each trait's probe at a 1 % false-positive rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from guardrail.calibration.slices import Populations
from guardrail.calibration.values import Calibration
from guardrail.errors import CalibrationError
from guardrail.evaluation.material import Example, Material, benign, labelled_as
from guardrail.evaluation.readout import Readout
from guardrail.evaluation.results import DetectorResult, Source
from guardrail.policy.plan import Plan
from guardrail.policy.rules import Rule
from guardrail.statistics.intervals import Estimate, rate
from guardrail.statistics.metrics import FPR, threshold_at
from guardrail.types import States
from guardrail.vectors.values import TraitVector, TraitVectors

Fired = NDArray[np.bool_]
BENIGN = "benign"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Fires if a trait's projection at a layer reaches (for `below`: falls to) a threshold."""

    vector: TraitVector
    layer: int
    threshold: float
    below: bool = False

    def fires(self, states: States) -> Fired:
        """[n] for states [n, d_model] by place."""
        values = self.vector.probe_at(self.layer).projection(states)
        return values <= self.threshold if self.below else values >= self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A policy as a guard would apply it."""

    plan: Plan
    rule: Rule

    def fires(self, states: States) -> Fired:
        """[n] for states [n, d_model] by place."""
        held = [self._holds(states, i) for i in range(len(self.rule.conditions))]
        return np.all(held, axis=0) if self.rule.require_all else np.any(held, axis=0)

    def _holds(self, states: States, index: int) -> Fired:
        condition = self.rule.conditions[index]
        assert condition.reading is not None
        values = self.plan.probes[condition.reading].projection(states)
        return values >= condition.threshold if condition.fires == "above" else values <= condition.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """Something that fires on states, and the traits that it detects."""

    traits: tuple[str, ...]
    source: Source
    mode: str
    what: Cut | Compiled


def from_plan(plan: Plan) -> dict[str, Detector]:
    """The policies that only read layers; those with scorer plugins are left out."""
    return {
        rule.id: Detector(
            traits=tuple(dict.fromkeys(c.trait for c in rule.conditions)),
            source="policy",
            mode=rule.mode,
            what=Compiled(plan=plan, rule=rule),
        )
        for rule in plan.rules
        if rule.mode != "off" and all(c.reading is not None for c in rule.conditions)
    }


def from_calibration(
    vectors: TraitVectors, calibration: Calibration, layers: Mapping[str, int], below: frozenset[str]
) -> dict[str, Detector]:
    """Each trait's probe at its calibrated threshold for FPR, or for the lowest rate that n allows.

    Raises CalibrationError if the calibration lacks a trait at its layer.
    """
    found: dict[str, Detector] = {}
    for trait, layer in layers.items():
        known = _known_at(calibration, trait, layer)
        rate = max(FPR, 1 / (known.fewest + 1))
        threshold = known.conformal(rate, "lower" if trait in below else "upper").projection
        found[_name(trait, rate)] = _detector(vectors[trait], layer, threshold, trait in below, "calibration")
    return found


def _known_at(calibration: Calibration, trait: str, layer: int) -> Populations:
    if (known := calibration.populations(trait, layer)) is None:
        raise CalibrationError(f"the calibration lacks {trait} at layer {layer}; calibrate again")
    return known


def _name(trait: str, fpr: float) -> str:
    return f"{trait} at {100 * fpr:.3g}% FPR"


def from_data(
    vectors: TraitVectors, layers: Mapping[str, int], material: Material, readout: Readout
) -> dict[str, Detector]:
    """Each trait's probe at a threshold that FPR of its own negatives reach. For confusion, not for rates."""
    found: dict[str, Detector] = {}
    for trait, layer in layers.items():
        if negatives := labelled_as(material.labelled, trait, False):
            below, scores = trait in material.below, readout.scores(negatives, vectors[trait], layer)
            cut = threshold_at(-scores if below else scores)
            edge = np.nextafter(np.float32(-cut if below else cut), np.float32(-np.inf if below else np.inf))
            found[_name(trait, FPR)] = _detector(vectors[trait], layer, float(edge), below, "data")
    return found


def _detector(vector: TraitVector, layer: int, threshold: float, below: bool, source: Source) -> Detector:
    cut = Cut(vector=vector, layer=layer, threshold=threshold, below=below)
    return Detector(traits=(vector.trait,), source=source, mode="enforce", what=cut)


def measured(detector: Detector, material: Material, readout: Readout) -> DetectorResult:
    """How often the detector fires, and on which prompts."""
    labelled = material.labelled
    clean = [e for e in labelled if all(e.labels.get(t) is False for t in detector.traits)]
    shown = [e for e in labelled if any(e.labels.get(t) for t in detector.traits)]
    columns = {t: labelled_as(labelled, t, True) for t in material.traits} | {BENIGN: benign(labelled)}
    share = partial(_share, detector, readout)
    return DetectorResult(
        traits=detector.traits,
        source=detector.source,
        mode=detector.mode,
        fpr=share(clean) if detector.source != "data" else None,
        tpr=share(shown),
        fires_on={name: found for name, part in columns.items() if (found := share(part))},
    )


def _share(detector: Detector, readout: Readout, examples: Sequence[Example]) -> Estimate | None:
    return rate(detector.what.fires(readout.placed(examples))) if examples else None


def set_fpr(detectors: Mapping[str, Detector], material: Material, readout: Readout) -> Estimate | None:
    """How often any enforced policy fires on prompts labelled with no trait."""
    enforced = [d for d in detectors.values() if d.mode == "enforce" and d.source == "policy"]
    clean = benign(material.labelled)
    if not enforced or not clean:
        return None
    states = readout.placed(clean)
    return rate(np.any([detector.what.fires(states) for detector in enforced], axis=0))
