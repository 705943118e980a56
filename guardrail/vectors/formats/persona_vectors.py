"""Tensors saved with torch, `.pt`: the official persona-vectors format, one tensor [L + 1, d_model].

Tensors of one or three dimensions are those of the refusal-direction project (`refusal_direction.py`).

Source: safety-research/persona_vectors, generate_vec.py. `TRAIT_response_avg_diff.pt` and the two related
files hold means of `hidden_states[0..L]` of transformers. Row l is our layer l, row 0 the embedding output.
Row L follows the final norm, so it is not the output of a layer and cannot be used.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardrail.errors import VectorError
from guardrail.files.json_text import MAX_BYTES
from guardrail.types import Fingerprint
from guardrail.vectors.formats.directions import Directions, direction
from guardrail.vectors.formats.refusal_direction import Place, from_tensor
from guardrail.vectors.values import TraitVector

POSITIONS = {
    "response_avg_diff": "response_mean",
    "prompt_last_diff": "last_prompt_token",
    "prompt_avg_diff": "prompt_mean",
}
"""The position at which activations were read, by the ending of an official file name."""


def read(path: Path, model: Fingerprint, first_block: int, place: Place) -> Directions:
    """Read an official file. Rows are already layers, so `first_block` is not used.

    Raises VectorError for anything but one float tensor of the model's shape. Never unpickles objects.
    """
    tensor = _loaded(path)
    if tensor.ndim in (1, 3):
        return from_tensor(_numbers(tensor), path, model, place)
    place.refuse()
    wanted = (model.layers + 1, model.d_model)
    if tuple(tensor.shape) != wanted:
        raise VectorError(f"the tensor has shape {list(tensor.shape)}, but this model needs {list(wanted)}")
    return Directions({layer: direction(row, model.d_model) for layer, row in enumerate(_numbers(tensor))})


def _numbers(tensor: Any) -> NDArray[np.generic]:
    if not tensor.is_floating_point():
        raise VectorError(f"directions have the type {tensor.dtype}; only floats can be read")
    return tensor.detach().float().numpy()


def _loaded(path: Path) -> Any:
    import torch

    _check_size(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about unusual pickles before it refuses them
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise VectorError(
            "it contains pickled Python objects, or is not a torch file; only a plain tensor can be read, "
            "since unpickling can run any code"
        ) from error
    if not isinstance(found, torch.Tensor):
        raise VectorError(f"it contains a {type(found).__name__}, not one tensor [layers + 1, d_model]")
    return found


def _check_size(path: Path) -> None:
    """Raises VectorError for a small file that unpacks to a large one, which torch would read into memory."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            if sum(part.file_size for part in file.infolist()) > MAX_BYTES:
                raise VectorError(f"it unpacks to more than {MAX_BYTES:,} bytes")


def write(path: Path, vector: TraitVector, model: Fingerprint) -> None:
    """Write all rows, usable or not, as one float32 tensor."""
    import torch

    torch.save(torch.from_numpy(vector.steering.copy()), path)


def losses(vector: TraitVector) -> tuple[str, ...]:
    """What this format, unlike the others, cannot store."""
    last = vector.layers
    if vector.usable(last):
        usable = f"that layer {last} is usable: readers assume that row {last} follows the final norm"
        return (usable, *_unusable(vector))
    return _unusable(vector)


def _unusable(vector: TraitVector) -> tuple[str, ...]:
    """Rows are written whether they can be used or not, and readers take all but the last."""
    rows = [str(row) for row in range(1, vector.layers) if not vector.usable(row)]
    return (f"that these layers cannot be used: {', '.join(rows)}",) if rows else ()
