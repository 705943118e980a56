"""Finetuned models on disk: folders with weights, adapters, and the checkpoints of a training run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from guardrail.engines.transformers.pretrained import model_path
from guardrail.engines.transformers.weights import identity_of
from guardrail.errors import ModelError
from guardrail.files import json_text

MODEL, ADAPTER = "config.json", "adapter_config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
NEEDED = 'adapters need the package peft: pip install "persona-guardrail[train]"'


def checkpoints(name: str) -> list[str]:
    """The model itself; or, for the folder of a training run, its checkpoints in the order of their steps.

    Raises ModelError for a folder that holds neither.
    """
    folder = Path(name)
    if not folder.is_dir() or any((folder / one).is_file() for one in (MODEL, ADAPTER)):
        return [name]
    if any(folder.glob("*.gguf")):
        return [name]
    steps = {int(path.name.rpartition("-")[2]): path for path in _numbered(folder)}
    if not steps:
        raise ModelError(f"{name} holds no model ({MODEL}), no adapter ({ADAPTER}) and no checkpoint-STEP")
    return [str(steps[step]) for step in sorted(steps)]


def _numbered(folder: Path) -> Sequence[Path]:
    found = folder.glob("checkpoint-*")
    return [path for path in found if path.is_dir() and path.name.rpartition("-")[2].isdecimal()]


def has_tokenizer(name: str) -> bool:
    """Whether a folder of weights has its tokenizer; what is no folder has one, or fails to load."""
    folder = Path(name)
    return not (folder / MODEL).is_file() or any((folder / one).is_file() for one in TOKENIZERS)


@dataclass(frozen=True, slots=True)
class _Config:
    """What is read of an adapter's configuration."""

    base_model_name_or_path: str | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter in a folder, and the model that it says it was trained on."""

    folder: Path
    base: str

    @classmethod
    def find(cls, name: str) -> Adapter | None:
        """The adapter in a folder, if there is one. Raises ModelError if its configuration is damaged."""
        path = Path(name) / ADAPTER
        if not path.is_file():
            return None
        try:
            config = json_text.validated(_Config, json_text.read(path))
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from error
        return cls(path.parent, config.base_model_name_or_path or "")

    def check_base(self, name: str, weights: str) -> str | None:
        """What cannot be told about the adapter's base. `weights`: those of the fingerprint of `name`.

        Raises ModelError for an adapter of another model than the one called `name`.
        """
        if self.base in (name, model_path(name)) or _same_place(self.base, model_path(name)):
            return None
        if (Path(self.base) / MODEL).is_file():
            if weights == identity_of(Path(self.base)):
                return None
        elif Path(self.base).name == Path(model_path(name)).name and self.base:
            return (
                f"{self.folder} was trained on {self.base}, which is not here; {name} has the same last name "
                "and is taken for it"
            )
        theirs = self.base or "a model that it does not name"
        raise ModelError(
            f"the adapter {self.folder} was trained on {theirs}, not on {name}; if "
            f"the two are the same, correct `base_model_name_or_path` in its {ADAPTER}"
        )

    def on(self, model: Any) -> Any:
        """The model with the adapter, in eval mode. Raises ModelError if it does not fit."""
        if find_spec("peft") is None:
            raise ModelError(NEEDED)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = self._put_on(model)
        if missing := [str(one.message) for one in said if "missing adapter keys" in str(one.message)]:
            raise ModelError(f"the adapter {self.folder} does not fit its base: {missing[0][:200]}")
        return found.eval()

    def _put_on(self, model: Any) -> Any:
        from peft import PeftModel

        try:
            return PeftModel.from_pretrained(model, str(self.folder))
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise ModelError(f"the adapter {self.folder} cannot be put on its base: {error}") from error


def _same_place(one: str, other: str) -> bool:
    return Path(one).exists() and Path(other).exists() and Path(one).resolve() == Path(other).resolve()
