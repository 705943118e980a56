"""The classifier as a value: weights that load from safetensors and turn a text into a logit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from guardrail.errors import PluginError
from guardrail_text_scorer.features import vector

FORMAT = "guardrail-text-scorer"


@dataclass(frozen=True, slots=True, eq=False)
class TextClassifier:
    """logit = <features(text), weights> + bias. `name` is what policies call it."""

    name: str
    weights: NDArray[np.float32] = field(repr=False)
    bias: float

    def __post_init__(self) -> None:
        if not self.name or self.weights.ndim != 1 or not len(self.weights):
            raise PluginError("a text classifier needs a name and one row of weights")
        if not (np.isfinite(self.weights).all() and np.isfinite(self.bias)):
            raise PluginError(f"text classifier `{self.name}`: weights are not finite")

    def logit(self, texts: Iterable[str]) -> float:
        """The log-odds of label 1, for the turns of one conversation together."""
        indices, values = vector(texts, len(self.weights))
        return float(self.weights[indices] @ values) + self.bias

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with the name in its metadata."""
        from safetensors.numpy import save_file

        arrays = {"weights": self.weights.astype(np.float32), "bias": np.float32([self.bias])}
        save_file(arrays, str(path), metadata={"format": FORMAT, "name": self.name})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file written by `save`. Raises PluginError for anything else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise PluginError(f"{path}: not a text classifier")
                return cls(metadata["name"], file.get_tensor("weights"), float(file.get_tensor("bias")[0]))
        except (OSError, KeyError, SafetensorError) as error:
            raise PluginError(f"{path}: cannot be read as a text classifier: {error}") from error
