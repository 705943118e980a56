"""A text guard whose weights come in a package of the registry: `metatronnanoguard` (MIT, 16.8M parameters).

It was made to find prompt injections, not requests for harm. Its wheel is unpacked and not installed. Its
own code runs, so the wheel must be the one whose code was read; its tokenizer is a pickle, from which one
class is loaded and nothing else. Needs `tiktoken`.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Self
from zipfile import ZipFile

import torch

from benchmarks.real.models import FOLDER, download, sha256

PACKAGE = "metatronnanoguard==0.1.0"
SHA256 = "615c7a6836a2f3ec1227c7aae4136e22b5d36de0bf5bbed95b8278e0e48374e2"
UNPACKED = FOLDER / "metatronnanoguard"


class _Tokenizer(pickle.Unpickler):
    """Loads one class and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) != ("tiktoken.core", "Encoding"):
            raise pickle.UnpicklingError(f"{module}.{name} does not belong into a tokenizer")
        return super().find_class(module, name)


class NanoGuard:
    """Scores texts as its scanner does: in float32 on the CPU, every text padded to 512 tokens."""

    def __init__(self) -> None:
        folder = fetch()
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        # importlib: type checkers do not know what is not installed
        model = import_module("nanoguard.model").Classifier
        assets = folder / "nanoguard" / "assets"
        encoding = unpickled(assets / "tokenizer.pkl")
        self._tokenizer: Any = import_module("nanoguard.tokenizer").Tokenizer(encoding)
        self._model, _, self._config = model.from_checkpoint(str(assets / "model.pt"))

    def bfloat16(self) -> Self:
        """Itself with smaller weights but for the last layers: three times as fast, nearly equal scores."""
        self._model.bfloat16().cls_norm.float()
        self._model.cls_head.float()
        return self

    def logits(self, texts: Sequence[str]) -> list[float]:
        """The log-odds of an injection, one for each text."""
        length = self._config.sequence_len
        ids = torch.full((len(texts), length), self._tokenizer.pad_token_id)
        mask = torch.zeros(len(texts), length, dtype=torch.bool)
        for row, text in enumerate(texts):
            own = self._tokenizer.encode(text, max_length=length)
            ids[row, : len(own)] = torch.tensor(own)
            mask[row, : len(own)] = True
        with torch.inference_mode():
            found = self._model(ids, mask)
        return (found[:, 1] - found[:, 0]).tolist()


def unpickled(path: Path) -> Any:
    """tiktoken's encoding. Raises UnpicklingError if the file would load anything else."""
    with path.open("rb") as file:
        return _Tokenizer(file).load()


def fetch() -> Path:
    """Where the wheel is unpacked. Raises Unavailable if it cannot be had, ValueError if it is another."""
    if not UNPACKED.is_dir():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
            wheel = download(PACKAGE, Path(temporary))
            if (found := sha256(wheel)) != SHA256:
                raise ValueError(f"{PACKAGE}: the sha256 is {found}, not {SHA256}; nothing was kept")
            with ZipFile(wheel) as archive:
                archive.extractall(Path(temporary) / "unpacked")
            (Path(temporary) / "unpacked").replace(UNPACKED)
    return UNPACKED
