# pyright: basic
"""Measures what the probes separate, and how often `{fpr: 0.01}` really fires."""

from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from guardrail.calibration.values import Calibration
from guardrail.demo import material, world
from guardrail.demo.making.evaluation.behaviour import SEED
from guardrail.demo.making.evaluation.results import Detection
from guardrail.demo.making.runner import Runner
from guardrail.statistics import intervals, metrics
from guardrail.statistics.intervals import Estimate, Numbers
from guardrail.types import Array
from guardrail.vectors.orthogonal import orthogonalised
from guardrail.vectors.values import TraitVectors, unit

STRONG, FRESH = 256, 2000
FPR = 0.01


def detection(
    runner: Runner, vectors: TraitVectors, calibration: Calibration, raw: TraitVectors
) -> dict[str, Detection]:
    """Every pole on the probe of its trait, beside the raw difference vectors."""
    strong = {p: runner.states(material.at_level(SEED, STRONG, "test", p, "strong")) for p in world.POLES}
    fresh = runner.states(material.benign(SEED, FRESH, "train", "validation"))
    unseen = runner.states(material.benign(SEED, FRESH, "test"))
    differences = {trait: vector.steering for trait, vector in raw.items()}
    kinds = {"raw": differences, "orthogonalised": orthogonalised(differences)}
    found = {p: _detected(vectors, calibration, p, strong, fresh, unseen) for p in world.POLES}
    return {
        p: Detection(**one, **{f"vs_others_{kind}": _best(p, strong, rows) for kind, rows in kinds.items()})
        for p, one in found.items()
    }


def projected(vectors: TraitVectors, pole: str, states: Array) -> Numbers:
    """[prompts]: projections at the trait's chosen layer; what the pole raises is high."""
    vector = vectors[world.trait_of(pole)]
    layer = vector.layer or 1
    values = states[:, layer] @ vector.probe[layer] + vector.offset[layer]
    return world.sign_of(pole) * values.astype(np.float64)


class _Found(TypedDict):
    layer: int
    auroc: Estimate
    auroc_vs_other_traits: Estimate
    tpr_at_1pct_fpr: Estimate
    fires_on_other_poles: dict[str, Estimate]
    fpr_fresh: Estimate
    fpr_unseen_phrasings: Estimate


def _detected(
    vectors: TraitVectors,
    calibration: Calibration,
    pole: str,
    strong: Mapping[str, Array],
    fresh: Array,
    unseen: Array,
) -> _Found:
    threshold = _threshold(vectors, calibration, pole)
    values = {name: projected(vectors, pole, states) for name, states in strong.items()}
    benign = projected(vectors, pole, unseen)
    fires = {name: _firing(v, threshold) for name, v in values.items()}
    return _Found(
        layer=vectors[world.trait_of(pole)].layer or 1,
        auroc=metrics.auroc(values[pole], benign),
        auroc_vs_other_traits=metrics.auroc(values[pole], _others(values, pole)),
        tpr_at_1pct_fpr=fires.pop(pole),
        fires_on_other_poles=fires,
        fpr_fresh=_firing(projected(vectors, pole, fresh), threshold),
        fpr_unseen_phrasings=_firing(benign, threshold),
    )


def _threshold(vectors: TraitVectors, calibration: Calibration, pole: str) -> float:
    trait, sign = world.trait_of(pole), world.sign_of(pole)
    benign = calibration.probes[trait][vectors[trait].layer or 1]
    return sign * benign.conformal(FPR, "upper" if sign > 0 else "lower")


def _firing(values: Numbers, threshold: float) -> Estimate:
    return intervals.rate([bool(x) for x in values >= threshold])


def _others(values: Mapping[str, Numbers], pole: str) -> Numbers:
    return np.concatenate([values[p] for p in values if world.trait_of(p) != world.trait_of(pole)])


def _best(pole: str, strong: Mapping[str, Array], rows: Mapping[str, Array]) -> Estimate:
    """AUROC against the other traits' strong prompts at the layer where it is highest."""
    direction = world.sign_of(pole) * unit(rows[world.trait_of(pole)])

    def at(layer: int) -> tuple[Numbers, Numbers]:
        values = {p: (x[:, layer] @ direction[layer]).astype(np.float64) for p, x in strong.items()}
        return values[pole], _others(values, pole)

    layer = max(range(1, len(direction)), key=lambda i: metrics.area(*at(i)))
    return metrics.auroc(*at(layer))
