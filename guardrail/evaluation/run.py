"""Runs an evaluation of a vector file on a model with labelled prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from guardrail.calibration.values import Calibration
from guardrail.demo.shipped import other_sizes
from guardrail.errors import CalibrationError, ConfigError, VectorError
from guardrail.evaluation import baseline, confusion, detectors
from guardrail.evaluation.detectors import Detector
from guardrail.evaluation.material import Example, Material, labelled_as, unique
from guardrail.evaluation.measure import TraitMeasurement, null_position
from guardrail.evaluation.nulls import DRAWS, RandomDirections
from guardrail.evaluation.readout import Readout, usable_layers
from guardrail.evaluation.results import Evaluation
from guardrail.policy.plan import Plan
from guardrail.types import Array, Fingerprint, Message, Position
from guardrail.vectors.values import TraitVectors

FEW, FEW_NEGATIVES, FEWEST_NEUTRAL = 30, 100, 10


class Reader(Protocol):
    """What an evaluation needs from a model."""

    @property
    def fingerprint(self) -> Fingerprint: ...
    def read(
        self, prompts: Sequence[Sequence[Message]], positions: Sequence[Position]
    ) -> Mapping[Position, Array]:
        """[n, L + 1, d_model] at each position."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What to evaluate. `layer`: one layer for all traits instead of each vector's own."""

    model: str
    vectors: TraitVectors
    data: str
    calibration: Calibration | None = None
    plan: Plan | None = None
    layer: int | None = None
    draws: int = DRAWS

    def positions(self, layers: Mapping[str, int]) -> list[Position]:
        """What has to be read for traits at these layers, at all others, and for the policies."""
        probes = [self.vectors[trait].probe_at(layer) for trait, layer in layers.items()]
        probes += self.plan.probes if self.plan else ()
        found: set[Position] = {site.position for probe in probes for site in probe.sites}
        found |= {self.vectors[trait].position for trait in layers}
        return sorted(found)


def check_setup(setup: Setup, fingerprint: Fingerprint, material: Material) -> None:
    """Raises a ConfigError for vectors or a calibration of another model, unknown traits and bad layers."""
    theirs = setup.vectors.provenance.fingerprint
    if not theirs.fits(fingerprint):
        raise VectorError(f"the vectors are for {other_sizes(theirs, fingerprint)}")
    if setup.calibration is not None:
        _check_calibration(setup.calibration, setup.vectors, fingerprint)
    setup.vectors.require(material.traits)
    for trait in material.traits:
        _check_classes(material, trait)


def _check_calibration(calibration: Calibration, vectors: TraitVectors, fingerprint: Fingerprint) -> None:
    if different := calibration.fingerprint.differences(fingerprint):
        raise CalibrationError(
            f"the calibration was made for another model (different: {', '.join(different)})"
        )
    if calibration.vectors_sha256 != vectors.sha256:
        raise CalibrationError("the calibration was made with another vector file; calibrate again")


def _check_classes(material: Material, trait: str) -> None:
    counts = {label: len(labelled_as(material.labelled, trait, label)) for label in (True, False)}
    if sum(counts.values()) and not all(counts.values()):
        only = "show it" if counts[True] else "do not show it"
        raise ConfigError(
            f"{trait}: all {sum(counts.values())} labelled prompts {only}; both kinds are needed"
        )
    if not sum(counts.values()) and not material.monitored.get(trait):
        raise ConfigError(f"{trait}: no prompt has a label or an expression for this trait")


def layers_of(setup: Setup, traits: Sequence[str]) -> dict[str, int]:
    """The layer that each trait is evaluated at. Raises ConfigError if there is none."""
    return {trait: _layer(setup, trait) for trait in traits}


def _layer(setup: Setup, trait: str) -> int:
    vector = setup.vectors[trait]
    layer = setup.layer or vector.layer
    if layer is None:
        raise ConfigError(f"{trait}: the vector file has no chosen layer for this trait; pass --layer")
    if not vector.usable(layer):
        raise ConfigError(f"{trait}: layer {layer} cannot be read; layers are 1 to {vector.layers}")
    return layer


def evaluate(setup: Setup, reader: Reader, material: Material) -> Evaluation:
    """Evaluate everything except steering. One forward pass per prompt."""
    check_setup(setup, reader.fingerprint, material)
    layers = layers_of(setup, material.traits)
    examples = material.examples()
    messages = [example.messages for example in examples]
    readout = Readout(examples, reader.read(messages, setup.positions(layers)))
    found = _detectors(setup, layers, material, readout)
    directions = _directions(setup, layers, material, readout)
    traits = {
        trait: TraitMeasurement(
            trait=trait,
            vector=setup.vectors[trait],
            layer=layers[trait],
            chosen=setup.layer is None,
            material=material,
            readout=readout,
            detector=_own(found, trait),
            directions=directions[null_position(setup.vectors[trait], layers[trait])] if directions else None,
        ).result()
        for trait in material.traits
    }
    cosines = confusion.cosines(setup.vectors, material.traits, layers)
    monitored = unique(example for part in material.monitored.values() for example in part)
    together = confusion.coexpression(monitored, material.traits)
    return Evaluation(
        model=setup.model,
        vectors_sha256=setup.vectors.sha256,
        calibration_sha256=setup.calibration.sha256 if setup.calibration else None,
        policy_sha256=setup.plan.policy_sha256 if setup.plan else None,
        data=setup.data,
        traits=traits,
        detectors={name: detectors.measured(one, material, readout) for name, one in found.items()},
        set_fpr=detectors.set_fpr(found, material, readout),
        cosines=cosines,
        steering_cosines=confusion.steering_cosines(setup.vectors, material.traits, layers),
        coexpression=together,
        cosine_vs_coexpression=confusion.agreement(cosines, together),
        notes=(*material.notes, *_notes(setup, reader.fingerprint, material, directions)),
    )


def _detectors(
    setup: Setup, layers: Mapping[str, int], material: Material, readout: Readout
) -> dict[str, Detector]:
    if setup.plan is not None:
        return detectors.from_plan(setup.plan)
    if setup.calibration is not None:
        return detectors.from_calibration(setup.vectors, setup.calibration, layers, material.below)
    return detectors.from_data(setup.vectors, layers, material, readout)


def _own(found: Mapping[str, Detector], trait: str) -> Detector | None:
    """The first detector for this trait alone whose threshold does not come from this data."""
    return next((d for d in found.values() if d.traits == (trait,) and d.source != "data"), None)


def _directions(
    setup: Setup, layers: Mapping[str, int], material: Material, readout: Readout
) -> dict[Position, RandomDirections]:
    """Random directions at each position that needs some; none with too few neutral prompts."""
    if len(material.neutral) < FEWEST_NEUTRAL or not material.traits:
        return {}
    vectors = [setup.vectors[trait] for trait in material.traits]
    rows = [setup.layer] if setup.layer else sorted({row for v in vectors for row in usable_layers(v)})
    found: set[Position] = {null_position(setup.vectors[trait], layers[trait]) for trait in material.traits}
    return {p: RandomDirections(readout.states(material.neutral, p), rows, setup.draws) for p in found}


def _notes(
    setup: Setup,
    fingerprint: Fingerprint,
    material: Material,
    directions: Mapping[Position, RandomDirections],
) -> list[str]:
    notes: list[str] = []
    if different := setup.vectors.provenance.fingerprint.differences(fingerprint):
        notes.append(f"the vectors were made for another model (different: {', '.join(different)})")
    if not directions:
        notes.append("no null of random directions: it needs neutral prompts (--neutral, or benign ones)")
    if not baseline.available():
        notes.append("no text baseline: it needs scikit-learn: pip install 'persona-guardrail[report]'")
    for trait in material.traits:
        notes += _small(trait, material.labelled)
    return notes


def _small(trait: str, labelled: Sequence[Example]) -> list[str]:
    positives, negatives = (len(labelled_as(labelled, trait, label)) for label in (True, False))
    notes = (
        [f"{trait}: only {positives} prompts show it; the intervals are wide"] if 0 < positives < FEW else []
    )
    if 0 < negatives < FEW_NEGATIVES:
        notes.append(
            f"{trait}: {negatives} prompts do not show it, so TPR at 1 % FPR is the share above all of them"
        )
    return notes
