"""The official persona-vectors `.pt`: one tensor [L + 1, d_model], saved with torch.

Source: safety-research/persona_vectors, generate_vec.py; `TRAIT_response_avg_diff.pt` and its two sisters
hold means of `hidden_states[0..L]` of transformers. Row l is our layer l, row 0 the embedding output. Row L
follows the final norm, so it is no layer's output and cannot be used.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

from guardrail.errors import VectorError
from guardrail.types import Fingerprint
from guardrail.vectors.formats.directions import Directions, direction
from guardrail.vectors.values import TraitVector

POSITIONS = {
    "response_avg_diff": "response_mean",
    "prompt_last_diff": "last_prompt_token",
    "prompt_avg_diff": "prompt_mean",
}
"""What the end of an official file name says about where the activations were read."""


def read(path: Path, model: Fingerprint, first_block: int) -> Directions:
    """Read an official file; rows are layers already, so `first_block` is not asked.

    Raises VectorError for anything but one float tensor of the model's shape; no object is ever unpickled.
    """
    tensor = _loaded(path)
    wanted = (model.layers + 1, model.d_model)
    if tuple(tensor.shape) != wanted:
        raise VectorError(f"the tensor has shape {list(tensor.shape)}, this model needs {list(wanted)}")
    if not tensor.is_floating_point():
        raise VectorError(f"directions are numbers of type {tensor.dtype}; only floats are read")
    rows = tensor.detach().float().numpy()
    return Directions({layer: direction(row, model.d_model) for layer, row in enumerate(rows)})


def _loaded(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of unusual pickles before it refuses them
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise VectorError(
            "it holds pickled Python objects, or is no torch file; only a plain tensor is read, since "
            "unpickling can run any code"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise VectorError(f"it cannot be read as a torch file: {error}") from error
    if not isinstance(found, torch.Tensor):
        raise VectorError(f"it holds a {type(found).__name__}, not one tensor [layers + 1, d_model]")
    return found


def write(path: Path, vector: TraitVector, model: Fingerprint) -> None:
    """Write all rows, usable or not, as one float32 tensor."""
    import torch

    torch.save(torch.from_numpy(vector.steering.copy()), path)


def losses(vector: TraitVector) -> tuple[str, ...]:
    """What only this format cannot hold."""
    last = vector.layers
    if not vector.usable(last):
        return ()
    return (f"that layer {last} is usable: readers take row {last} to follow the final norm",)
