"""Control vectors in GGUF, the format of llama.cpp and repeng.

One float tensor `direction.N` [d_model] per layer, `general.architecture` = `controlvector`. N counts
decoder blocks from 0 in both: llama.cpp adds `direction.N` to the output of block N (llama_adapter_cvec;
`common_control_vector_load_one` refuses N = 0, so the first block cannot be steered), and repeng reads it
from `hidden_states[N + 1]`. So `direction.N` is our layer N + 1.

llama.cpp's own cvector-generator reads from block N but names the result `direction.(N + 1)`, so llama.cpp
adds it one block later. By the place of reading, its `direction.N` is our layer N: count from 1.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from guardrail.errors import VectorError
from guardrail.types import Fingerprint
from guardrail.vectors.formats.directions import Directions, by_layer
from guardrail.vectors.formats.refusal_direction import Place
from guardrail.vectors.values import TraitVector

ARCHITECTURE = "controlvector"
RAW_LAST = "guardrail.raw_last_layer"
TRAIT = "guardrail.trait"
_NAME = re.compile(r"direction\.([0-9]{1,9})")
_FIRST_WRITTEN = 2
"""The layer of `direction.1`, the first that llama.cpp accepts."""


def read(path: Path, model: Fingerprint, first_block: int, place: Place) -> Directions:
    """Read a control vector. Raises VectorError for other GGUF files, quantised tensors and wrong shapes."""
    place.refuse()
    reader = _gguf().GGUFReader(path)
    architecture = _text(reader, "general.architecture")
    if architecture != ARCHITECTURE:
        raise VectorError(f"the architecture is {architecture!r}, not {ARCHITECTURE!r}")
    numbered = {_number(tensor.name): _row(tensor) for tensor in reader.tensors}
    if len(numbered) < len(reader.tensors):
        raise VectorError("two directions have the same block number")
    raw_last = reader.get_field(RAW_LAST)
    return Directions(
        by_layer(numbered, model, first_block), raw_last=raw_last is not None and bool(raw_last.contents())
    )


def write(path: Path, vector: TraitVector, model: Fingerprint) -> None:
    """Write the usable layers from 2 on. Both tools can read the file."""
    layers = [layer for layer in range(_FIRST_WRITTEN, vector.layers + 1) if vector.usable(layer)]
    if not layers:
        raise VectorError(
            f"{vector.trait} has no usable layer from {_FIRST_WRITTEN} on, so there is nothing to write"
        )
    writer = _gguf().GGUFWriter(path, ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", model_hint(model))
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(layers))
    writer.add_string(TRAIT, vector.trait)
    writer.add_bool(RAW_LAST, True)
    for layer in layers:
        writer.add_tensor(f"direction.{layer - 1}", np.ascontiguousarray(vector.steering[layer]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def losses(vector: TraitVector) -> tuple[str, ...]:
    """What this format, unlike the others, cannot store."""
    return ("layer 1: llama.cpp cannot steer the first block",) if vector.usable(1) else ()


def model_hint(model: Fingerprint) -> str:
    """The model type as repeng writes it, derived from the architecture: `llama`, `qwen2`."""
    return re.sub(r"(For[A-Z]|LMHead).*$", "", model.architecture).lower()


def _gguf() -> ModuleType:
    try:
        import gguf
    except ImportError as error:
        raise VectorError(
            "GGUF files need the package gguf: pip install 'persona-guardrail[gguf]'"
        ) from error
    return gguf


def _text(reader: Any, key: str) -> str | None:
    found = reader.get_field(key)
    return None if found is None else str(found.contents())


def _number(name: str) -> int:
    found = _NAME.fullmatch(name)
    if found is None:
        raise VectorError(f"unexpected tensor {name!r}; control vectors contain only `direction.N`")
    return int(found[1])


def _row(tensor: Any) -> Any:
    if tensor.tensor_type.name not in ("F32", "F16"):
        raise VectorError(f"{tensor.name} is stored as {tensor.tensor_type.name}; only F32 and F16 are read")
    return np.array(tensor.data)
