"""The tuned lens (Belrose et al. 2023, 2303.08112): an affine map for each layer before the unembedding.

    lens_l(h) = Unembed(h + h A_l + b_l)

It reads early layers better than the logit lens, which takes for granted that all layers speak the last one's
language. `training` makes one; here it is applied, saved and loaded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from torch import Tensor

from guardrail.errors import ConfigError, ModelError
from guardrail.types import Fingerprint

FORMAT = "guardrail-tuned-lens-1"


@dataclass(frozen=True, slots=True)
class TunedLens:
    """Translators of layers 1 to L - 1: A [L - 1, d_model, d_model] and b [L - 1, d_model], float32.

    before, after: mean KL(output || lens) on held-out text at each of those layers, in nats, of the logit
    lens and of this one. sources: how each layer's translator was found.
    """

    maps: Tensor
    biases: Tensor
    fingerprint: Fingerprint
    before: tuple[float, ...]
    after: tuple[float, ...]
    sources: tuple[str, ...]

    def translate(self, layer: int, states: Tensor) -> Tensor:
        """States [n, d_model] of a layer as the last layer would have them."""
        states = states.float()
        if layer > len(self.maps):
            return states
        device = states.device
        return states + states @ self.maps[layer - 1].to(device) + self.biases[layer - 1].to(device)

    @property
    def sha256(self) -> str:
        """A name of these translators."""
        numbers = (part.cpu().contiguous().numpy().tobytes() for part in (self.maps, self.biases))
        return hashlib.sha256(b"".join(numbers)).hexdigest()

    def check(self, fingerprint: Fingerprint) -> None:
        """Raises ModelError if the lens was trained for other weights."""
        if self.fingerprint.weights != fingerprint.weights:
            raise ModelError("the tuned lens was trained for other weights; train one for this model")

    def save(self, path: Path) -> None:
        """Write safetensors. Raises ConfigError if the file cannot be written."""
        from safetensors.torch import save_file

        about = {name: getattr(self, name) for name in ("before", "after", "sources")}
        about["fingerprint"] = asdict(self.fingerprint)
        metadata = {"format": FORMAT, "about": json.dumps(about)}
        try:
            save_file({"maps": self.maps, "biases": self.biases}, path, metadata)
        except Exception as error:  # safetensors has errors of its own for files
            raise ConfigError(f"{path}: cannot be written: {error}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a lens. Raises ConfigError for a file that is none."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})["about"])
                maps, biases = file.get_tensor("maps"), file.get_tensor("biases")
            mark = Fingerprint(**about["fingerprint"])
            before, after = (tuple(map(float, about[name])) for name in ("before", "after"))
            return cls(maps, biases, mark, before, after, tuple(about["sources"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: is not a tuned lens: {error}") from error
