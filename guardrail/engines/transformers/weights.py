"""Where a model's weights come from: the files that they are still equal to, or memory alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guardrail.engines.transformers.held import is_wrapper, packed, plain
from guardrail.errors import ModelError

BLOCK = 4096
ROWS = 8
"""How many rows of a tensor are compared with its file, from the first to the last."""
SAMPLE = 64
RECORD = "guardrail_origin.json"
"""In a folder of safetensors files: which file they were unpacked from, and what they were then."""


def source_of(model: Any) -> tuple[str, Sequence[Path]] | None:
    """The identity of the safetensors files that a model was loaded from, and the files, if they are here."""
    name, commit = getattr(model, "name_or_path", "") or "", getattr(model.config, "_commit_hash", None)
    folder = _snapshot(name, commit) if commit and not Path(name).is_dir() else Path(name)
    files = sorted(folder.glob("*.safetensors")) if name and folder is not None and folder.is_dir() else []
    if not files:
        return None
    return (f"revision:{commit}" if commit else _identity(files)), files


def identity_of(folder: Path) -> str | None:
    """The identity of the safetensors files in a folder, of which no model is loaded; None without any."""
    files = sorted(folder.glob("*.safetensors"))
    return _identity(files) if files else None


def record(folder: Path, origin: str) -> None:
    """Note that the safetensors files of a folder hold the weights of another file, with this identity."""
    files = sorted(folder.glob("*.safetensors"))
    found = {"origin": origin, "weights": f"files:{_files_digest(files)}"}
    (folder / RECORD).write_text(json.dumps(found) + "\n", encoding="utf-8")


def _identity(files: Sequence[Path]) -> str:
    """That of the file that these were unpacked from, if they are as they were then; else their own."""
    own, place = f"files:{_files_digest(files)}", files[0].parent / RECORD
    try:
        noted = json.loads(place.read_text(encoding="utf-8"))
        return str(noted["origin"]) if noted["weights"] == own else own
    except (OSError, ValueError, KeyError, TypeError):
        return own


def _snapshot(name: str, commit: str) -> Path | None:
    """The folder of a revision in the hub's cache; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=commit)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _files_digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            start = 8 + size
            for name in sorted(set(header) - {"__metadata__"}):
                entry = header[name]
                begin, end = entry["data_offsets"]
                digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
                file.seek(start + begin)
                digest.update(file.read(min(BLOCK, end - begin)))
    return digest.hexdigest()[:32]


def unexplained(held: Mapping[str, Tensor], files: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors in memory, by name, that are in no file or differ from it."""
    from safetensors import safe_open

    explained: set[int] = set()
    for path in files:
        with safe_open(str(path), framework="pt") as file:
            stored = frozenset(file.keys())
            for name, tensor in held.items():
                if any(_equal(file.get_slice(found), tensor) for found in origins(name, stored)):
                    explained.add(id(tensor))
    # a tied tensor has several names, of which a file may hold one
    return {name: tensor for name, tensor in held.items() if id(tensor) not in explained}


def origins(name: str, stored: frozenset[str]) -> Iterator[str]:
    """The stored names that become `name` by adding one run of parts, as prefixes and wrappers do."""
    parts = name.split(".")
    spans = ((i, j) for length in range(len(parts)) for i in range(len(parts)) for j in [i + length])
    shorter = (".".join(parts[:i] + parts[j:]) for i, j in spans if j <= len(parts))
    return (candidate for candidate in shorter if candidate in stored)


def _equal(stored: Any, tensor: Tensor) -> bool:
    """Whether a few rows are those of the file; a tensor that is quantised or elsewhere is not compared."""
    if is_wrapper(tensor) or tensor.device.type == "meta" or not tensor.is_floating_point():
        return True
    if list(stored.get_shape()) != list(tensor.shape):
        return False
    if tensor.ndim == 0:
        return bool(stored[...].to(tensor.dtype) == tensor.detach().cpu())
    rows = sorted({round(i * (len(tensor) - 1) / (ROWS - 1)) for i in range(ROWS)}) if len(tensor) else []
    there = [stored[row : row + 1] for row in rows]
    here = tensor.detach()[rows].cpu()
    return not rows or torch.equal(torch.cat(there).to(here.dtype), here)


def digest(model: Any) -> str:
    """The SHA-256 of every weight and buffer of a model that is all in memory. Reads the whole model.

    Raises ModelError if some of it is not in memory.
    """
    found = hashlib.sha256()
    held = [(name, part) for name, tensor in _tensors(model) for part in plain(tensor)]
    for name, tensor in sorted(held, key=itemgetter(0)):
        if tensor.device.type == "meta":
            raise ModelError(f"the weight {name} is not in memory, so the model cannot be told from others")
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
    yield from packed(model)


def sampled(tensor: Tensor) -> Tensor:
    """[up to 64] float32 on the CPU: values from the whole tensor, or from each that a wrapper is made of."""
    if is_wrapper(tensor):
        return torch.cat([sampled(part) for part in plain(tensor)])
    flat = tensor.detach().reshape(-1)
    step = max(1, flat.numel() // SAMPLE)
    return flat[::step][:SAMPLE].float().cpu()
