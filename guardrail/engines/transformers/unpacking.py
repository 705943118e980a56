"""A GGUF file as a folder of plain weights, for what cannot load such a file, with the same fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from os import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from guardrail.engines.transformers import gguf
from guardrail.engines.transformers.weights import identity_of, record
from guardrail.errors import ModelError


def unpack(file: Path, folder: Path, arguments: Mapping[str, Any] | None = None) -> Path:
    """The folder, which is made unless it is there: weights, tokenizer, template and end tokens of a file.

    arguments: those of `from_pretrained`. Raises ModelError for a file that cannot be loaded, for a folder
    that is something else, and for a disk that is full.
    """
    origin = gguf.identity(file)
    if folder.exists():
        if identity_of(folder) == origin:
            return folder
        raise ModelError(f"{folder} is there, and does not hold the weights of {file}")
    model, tokenizer = gguf.load(file, dict(arguments or {}))
    try:
        _save(model, tokenizer, folder, origin)
    except OSError as error:
        if folder.exists() and identity_of(folder) == origin:
            # another process was faster
            return folder
        raise ModelError(f"{file} cannot be unpacked into {folder}: {error}") from error
    return folder


def _save(model: Any, tokenizer: Any, folder: Path, origin: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as place:
        made = Path(place) / folder.name
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        record(made, origin)
        # whole or not at all: another process may look at the same moment, or this one be killed
        replace(made, folder)
