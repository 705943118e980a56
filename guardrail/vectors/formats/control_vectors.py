"""Control vectors in GGUF, as llama.cpp and repeng write and read them.

One float tensor `direction.N` [d_model] for each layer, `general.architecture` = `controlvector`. N counts
decoder blocks from 0 in both: llama.cpp adds `direction.N` to the output of block N (llama_adapter_cvec;
`common_control_vector_load_one` refuses N = 0, so the first block cannot be steered), and repeng reads it
from `hidden_states[N + 1]`. So `direction.N` is our layer N + 1.

llama.cpp's own cvector-generator names what it read from block N `direction.(N + 1)`, one block further
than where llama.cpp then adds it; by where it was read, its `direction.N` is our layer N: count from 1.
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
from guardrail.vectors.values import TraitVector

ARCHITECTURE = "controlvector"
RAW_LAST = "guardrail.raw_last_layer"
TRAIT = "guardrail.trait"
_NAME = re.compile(r"direction\.(\d+)")
_FIRST_WRITTEN = 2
"""Our layer of `direction.1`, the first that llama.cpp accepts."""


def read(path: Path, model: Fingerprint, first_block: int) -> Directions:
    """Read a control vector. Raises VectorError for other GGUF files, quantised tensors and wrong shapes."""
    reader = _opened(path)
    architecture = _text(reader, "general.architecture")
    if architecture != ARCHITECTURE:
        raise VectorError(f"its architecture is {architecture!r}, not {ARCHITECTURE!r}")
    numbered = {_number(tensor.name): _row(tensor) for tensor in reader.tensors}
    if len(numbered) < len(reader.tensors):
        raise VectorError("two of its directions have the same block number")
    raw_last = reader.get_field(RAW_LAST)
    return Directions(
        by_layer(numbered, model, first_block), raw_last=raw_last is not None and bool(raw_last.contents())
    )


def write(path: Path, vector: TraitVector, model: Fingerprint) -> None:
    """Write the usable layers from 2 on; both tools read the file."""
    layers = [layer for layer in range(_FIRST_WRITTEN, vector.layers + 1) if vector.usable(layer)]
    if not layers:
        raise VectorError(f"{vector.trait} has no usable layer from {_FIRST_WRITTEN} on: nothing to write")
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
    """What only this format cannot hold."""
    return ("layer 1: llama.cpp cannot steer the first block",) if vector.usable(1) else ()


def model_hint(model: Fingerprint) -> str:
    """The model type as repeng writes it, as far as the architecture tells: `llama`, `qwen2`."""
    return re.sub(r"(For[A-Z]|LMHead).*$", "", model.architecture).lower()


def _opened(path: Path) -> Any:
    reader = _gguf().GGUFReader
    try:
        return reader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise VectorError(f"it cannot be read as GGUF: {error}") from error


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
        raise VectorError(f"a tensor is called {name!r}; control vectors hold `direction.N` alone")
    return int(found[1])


def _row(tensor: Any) -> Any:
    if tensor.tensor_type.name not in ("F32", "F16"):
        raise VectorError(f"{tensor.name} is stored as {tensor.tensor_type.name}; only F32 and F16 are read")
    return np.array(tensor.data)
