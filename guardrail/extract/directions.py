"""Computes the steering vector and the probe of every trait, and how well they separate prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardrail.extract.moments import Moments
from guardrail.extract.probes import Fitted, Pool, Separation, centring, fit_probe, separation
from guardrail.extract.settings import STEERING_VECTOR, ExtractionSettings
from guardrail.extract.stability import cosines
from guardrail.plugins.protocols import Examples, ExtractionMethod
from guardrail.types import Array
from guardrail.vectors.orthogonal import orthogonalised
from guardrail.vectors.provenance import Untangled
from guardrail.vectors.values import unit

Methods = Mapping[str, ExtractionMethod]


@dataclass(frozen=True, slots=True, kw_only=True)
class Directions:
    """One trait: steering [L + 1, d_model], the probe, and its separation on held-out prompts."""

    steering: Array
    probe: Fitted
    separation: Separation
    untangled: Untangled | None = None


def directions(
    moments: Mapping[str, Moments],
    pools: Sequence[Pool],
    held_out: Sequence[Pool],
    methods: Methods,
    settings: ExtractionSettings,
) -> dict[str, Directions]:
    """The directions of every trait. pools: prompts to fit on; held_out: prompts to test on."""
    raw = {trait: steering_vector(one, methods, settings) for trait, one in moments.items()}
    steering = orthogonalised(raw) if settings.orthogonalise and len(raw) > 1 else raw
    found: dict[str, Directions] = {}
    for trait, vector in steering.items():
        probe = _probe(trait, vector, pools, methods, settings)
        found[trait] = Directions(
            steering=vector,
            probe=probe,
            separation=separation(probe.probe, trait, held_out),
            untangled=_untangled(trait, raw[trait], vector, held_out) if vector is not raw[trait] else None,
        )
    return found


def steering_vector(moments: Moments, methods: Methods, settings: ExtractionSettings) -> Array:
    """[L + 1, d_model]: the mean difference, or another method's direction at the same length.

    Other methods get the mean states of each question, paired by positive and negative.
    """
    difference = moments.difference(settings.position)
    if settings.steering == "difference":
        return difference
    found = _of_method(methods[settings.steering], *moments.question_means(settings.position))
    norms = np.linalg.norm(difference, axis=1, keepdims=True)
    return np.where(norms > 0, unit(found) * norms, 0).astype(np.float32)


def _of_method(method: ExtractionMethod, positive: Array, negative: Array) -> Array:
    """[L + 1, d_model]: a method's direction at each layer."""
    layers = range(positive.shape[1])
    return np.stack([method.direction(_of_questions(positive[:, i], negative[:, i])) for i in layers])


def _of_questions(positive: Array, negative: Array) -> Examples:
    return Examples(
        positive=positive,
        negative=negative,
        neutral=negative[:0],
        states=np.concatenate([positive, negative]),
        scores=np.repeat(np.array([100, 0], np.float32), len(positive)),
    )


def _probe(
    trait: str, steering: Array, pools: Sequence[Pool], methods: Methods, settings: ExtractionSettings
) -> Fitted:
    if settings.probe != STEERING_VECTOR:
        return fit_probe(methods[settings.probe], trait, pools)
    return Fitted(probe=unit(steering), offset=centring(unit(steering), pools))


def _untangled(trait: str, before: Array, after: Array, held_out: Sequence[Pool]) -> Untangled:
    """Separation is the mean of the AUROC against plain prompts and the AUROC against other traits."""
    areas = [separation(unit(rows), trait, held_out) for rows in (before, after)]
    return Untangled(
        cosine=tuple(round(float(value), 4) for value in cosines(before, after)[1:]),
        auroc_before=tuple(map(_mean, areas[0].own, areas[0].others)),
        auroc_after=tuple(map(_mean, areas[1].own, areas[1].others)),
    )


def _mean(own: float, others: float) -> float:
    return round((own + others) / 2, 4)
