"""The JSON format `.svec` of IBM's activation-steering, also written by AISteer360.

`{"model_type", "directions": {"N": [d_model numbers]}, "explained_variances": {...}}`. N counts decoder
blocks from 0: directions come from `hidden_states[N + 1]` and are added to the output of block N, so N is
our layer N + 1, and the last one was read after the final norm. AISteer360 writes [K, d_model] lists and may
add `meta`, `num_heads` and more. K = 1 is one direction and can be read; other K are positions, planes or
heads. With its `location="layer_input"`, which the file does not record, N is the input of block N and so our
layer N: count from 1. N = 0, the embedding output, is then left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardrail.errors import VectorError
from guardrail.files import json_text
from guardrail.files.whole import write_whole
from guardrail.types import Fingerprint
from guardrail.vectors.formats.control_vectors import model_hint
from guardrail.vectors.formats.directions import Directions, by_layer
from guardrail.vectors.formats.refusal_direction import Place
from guardrail.vectors.values import TraitVector

_RAW_LAST = "raw_last_layer"


def read(path: Path, model: Fingerprint, first_block: int, place: Place) -> Directions:
    """Read an .svec file. Raises VectorError for other JSON, directions of heads, and wrong shapes."""
    place.refuse()
    data = _loaded(path)
    if data.get("num_heads") is not None:
        raise VectorError("the directions are for attention heads, not for the residual stream")
    given = data.get("directions")
    if not isinstance(given, dict):
        raise VectorError("it is not an .svec file: it has no `directions` by block number")
    numbered = {_number(key): _row(key, row) for key, row in given.items()}
    if len(numbered) < len(given):
        raise VectorError("two directions have the same block number")
    if first_block == 1:
        numbered.pop(0, None)
    meta = data.get("meta")
    ours = meta.get("guardrail") if isinstance(meta, dict) else None
    raw_last = isinstance(ours, dict) and ours.get(_RAW_LAST) is True
    return Directions(by_layer(numbered, model, first_block), raw_last=raw_last)


def write(path: Path, vector: TraitVector, model: Fingerprint) -> None:
    """Write the usable layers, so that both tools can read them. Explained variances are unknown: none."""
    layers = [layer for layer in range(1, vector.layers + 1) if vector.usable(layer)]
    data = {
        "model_type": model_hint(model),
        "directions": {str(layer - 1): vector.steering[layer].tolist() for layer in layers},
        "explained_variances": {},
        "meta": {"guardrail": {"trait": vector.trait, _RAW_LAST: True}},
    }
    write_whole(path, json.dumps(data).encode())


def losses(vector: TraitVector) -> tuple[str, ...]:
    """What this format, unlike the others, cannot store: nothing."""
    return ()


def _loaded(path: Path) -> Mapping[str, Any]:
    data = json_text.read(path)
    if not isinstance(data, dict):
        raise VectorError("it is not an .svec file: the JSON is not an object")
    return data


def _number(key: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", key):
        raise VectorError(f"unexpected direction name {key!r}; names must be block numbers")
    return int(key)


def _row(key: str, row: object) -> NDArray[np.float64]:
    try:
        values = np.array(row, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise VectorError(f"direction {key} is not a list of numbers") from error
    if values.ndim == 2 and len(values) == 1:
        return values[0]
    if values.ndim == 2:
        raise VectorError(
            f"direction {key} has {len(values)} rows (positions, a plane or heads); only one row can be read"
        )
    return values
