"""Benign replies of one's own model, as the calibration of policies about replies and conversations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardrail.calibration import BenignReplies
from guardrail.errors import CalibrationError
from guardrail.running import Statistic
from guardrail.turns import turn_projections
from guardrail.types import Message, Probe
from guardrail.vectors import TraitVector, TraitVectors

STATISTICS: tuple[tuple[Statistic, int], ...] = (("mean", 16), ("max", 16), ("ema", 16))
"""What is calibrated unless more is asked for: the default window of every statistic."""


def benign_replies(
    engine: Any,
    vectors: TraitVectors,
    conversations: Iterable[Sequence[Message]],
    statistics: Sequence[tuple[Statistic, int]] = STATISTICS,
    layers: Sequence[int] | None = None,
) -> Mapping[str, Mapping[int, BenignReplies]]:
    """The section `replies` of a calibration: trait to layer to what the assistant turns project to.

    `layers`: None is each trait's own layer, that of `auto`. Raises CalibrationError for a trait without one,
    and for too few replies. One forward pass for each conversation.
    """
    probes = [probe for vector in vectors.values() for probe in _probes(vector, layers)]
    found: list[list[NDArray[np.float32]]] = [[] for _ in probes]
    for conversation in conversations:
        for turn in turn_projections(engine, conversation, probes):
            for rows, row in zip(found, turn, strict=True):
                rows.append(row)
    table: dict[str, dict[int, BenignReplies]] = {}
    for probe, rows in zip(probes, found, strict=True):
        table.setdefault(probe.trait, {})[probe.layer] = BenignReplies.of(rows, statistics)
    return table


def _probes(vector: TraitVector, layers: Sequence[int] | None) -> list[Probe]:
    chosen = layers if layers is not None else [vector.layer] if vector.layer is not None else []
    if not chosen:
        raise CalibrationError(f"`{vector.trait}` has no layer of its own; name the layers")
    return [
        Probe(
            trait=vector.trait, layer=layer, weights=vector.probe[layer], offset=float(vector.offset[layer])
        )
        for layer in chosen
    ]
