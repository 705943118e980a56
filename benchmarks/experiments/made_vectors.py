"""Trait vectors from written replies: the mean state of one pole minus that of the other.

States are means over reply tokens, as in Chen et al. 2025 (arXiv 2507.21509, 2.2); the replies are put into
the model's mouth, instead of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.experiments.training import Conversation, encoded
from guardrail.extract.subject import Subject
from guardrail.policy.steering import build_steering
from guardrail.types import Array, Steering, SteerSpec
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.values import TraitVector, TraitVectors

Poles = tuple[Sequence[Conversation], Sequence[Conversation]]
"""Conversations that show a trait, and others that show its opposite, or nothing."""


def made_vectors(
    subject: Subject, poles: Mapping[str, Poles], layers: Mapping[str, int], path: Path
) -> TraitVectors:
    """The vectors of all traits, quoted at these layers; made unless the file is there."""
    if not path.is_file():
        created = datetime.now(UTC).isoformat(timespec="seconds")
        provenance = Provenance(
            fingerprint=subject.fingerprint, method="difference of written replies", created=created
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        TraitVectors(_vectors(subject, poles, layers), provenance).save(path)
    return TraitVectors.load(path)


def incremental(vector: TraitVector, coefficient: float) -> Steering:
    """A multiple of the vector, added layer by layer."""
    spec = SteerSpec(operator="add", layers="incremental", coefficient=coefficient)
    return build_steering(spec, f"{vector.trait} {coefficient:g}", vector, 0, None)


def _vectors(
    subject: Subject, poles: Mapping[str, Poles], layers: Mapping[str, int]
) -> dict[str, TraitVector]:
    means: dict[int, Array] = {}
    for one in (one for pair in poles.values() for one in pair):
        if id(one) not in means:
            means[id(one)] = _mean_states(subject, one)
    return {
        trait: TraitVector.from_difference(trait, means[id(high)] - means[id(low)], layers[trait])
        for trait, (high, low) in poles.items()
    }


def _mean_states(subject: Subject, conversations: Sequence[Conversation]) -> Array:
    """[L + 1, d_model]: over the replies, each of which counts the same."""
    rows = [encoded(subject, one) for one in conversations]
    spans = [[(len(prompt), len(prompt) + len(reply) - 1)] for prompt, reply in rows]
    states = subject.means([[*prompt, *reply] for prompt, reply in rows], spans)[:, 0]
    return states.mean(axis=0, dtype=np.float64).astype(np.float32)
