"""What a sweep found: an effect for each direction, patch and pair, in a safetensors and a JSON file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from guardrail.engines.transformers.activations import Component
from guardrail.errors import ConfigError
from guardrail.files import json_text
from guardrail.interpret.patching.pairs import Reject
from guardrail.interpret.patching.patches import Patch
from guardrail.statistics.intervals import Estimate, mean
from guardrail.types import Array, Fingerprint

T = TypeVar("T")
ARRAYS, DESCRIPTION = "patch.safetensors", "patch.json"
HEAD_TOKENS = {"all": "all tokens", "last": "the last token"}
"""Where heads are patched."""
DIRECTIONS = ("denoising", "noising")
"""The source's values in the target's run (are they sufficient?), and the other way (are they necessary?)."""


class Kept(BaseModel):
    """A pair that was patched: the answers of its runs, logits between them, and the identity's tokens."""

    model_config = ConfigDict(frozen=True)
    name: str
    source: str
    target: str
    gap: float
    tokens: int
    identity: tuple[int, int]


class Described(BaseModel):
    """All of a result but its numbers. heads: 0 if the model's heads cannot be told apart.

    notes: what was left out, and what is unusual about the prompts of this model.
    """

    model_config = ConfigDict(frozen=True)
    model: str
    fingerprint: Fingerprint
    form: str
    layers: int
    heads: int
    near: int
    window: int
    directions: tuple[str, ...]
    patches: tuple[Patch, ...]
    pairs: tuple[Kept, ...]
    rejects: tuple[Reject, ...]
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PatchResult:
    """Arrays are [directions, patches, pairs]; NaN where a pair lacks the tokens of a patch.

    effects: 0 the run stayed as it was, 1 it became the other one. flips: whether the answer did. kl: nats.
    """

    about: Described
    effects: Array
    flips: Array
    kl: Array

    @cached_property
    def _places(self) -> dict[Patch, int]:
        return {patch: i for i, patch in enumerate(self.about.patches)}

    def values(self, patch: Patch, direction: str, of: str = "effects") -> Array:
        """What a patch did to each pair that has its tokens; empty for a patch that was not made."""
        place = self._places.get(patch)
        if place is None or direction not in self.about.directions:
            return np.zeros(0, np.float32)
        found = getattr(self, of)[self.about.directions.index(direction), place]
        return found[~np.isnan(found)]

    @cached_property
    def _means(self) -> dict[tuple[Patch, str, str], Estimate | None]:
        return {}

    def mean(self, patch: Patch, direction: str, of: str = "effects") -> Estimate | None:
        """The mean over pairs; None without any."""
        asked = patch, direction, of
        if asked not in self._means:
            found = self.values(patch, direction, of)
            self._means[asked] = mean(found) if len(found) else None
        return self._means[asked]

    def layer(
        self, component: Component, where: str, direction: str, *, direct: bool = False
    ) -> dict[int, Estimate]:
        """The mean effect of one layer after another."""
        made = ((n, Patch((n,), component, where, direct=direct)) for n in range(self.about.layers + 1))
        return {n: found for n, patch in made if (found := self.mean(patch, direction))}

    def windows(self, component: Component, where: str, direction: str) -> dict[int, Estimate]:
        """The mean joint effect of some layers, by the first of them."""
        width = range(self.about.window)
        made = ((n, Patch(tuple(n + i for i in width), component, where)) for n in self._firsts())
        return {n: found for n, patch in made if (found := self.mean(patch, direction))}

    def _firsts(self) -> Iterator[int]:
        yield from range(1, self.about.layers - self.about.window + 2)

    @property
    def head_tokens(self) -> tuple[str, ...]:
        """Where heads were patched, all tokens before the last one; nowhere without a sweep over heads."""
        made = {patch.where for patch in self.about.patches if patch.component == "heads"}
        return tuple(where for where in HEAD_TOKENS if where in made)

    def heads(self, where: str, direction: str) -> dict[Patch, Estimate]:
        """The mean effect of every single head, the largest first."""
        made = (patch for patch in self.about.patches if patch.component == "heads" and patch.where == where)
        found = {patch: effect for patch in made if (effect := self.mean(patch, direction))}
        return dict(sorted(found.items(), key=lambda one: -abs(one[1].value)))

    def indirect(self, component: Component, direction: str) -> dict[int, Estimate]:
        """The total effect of all tokens less the direct one, by layer, pair by pair."""
        found: dict[int, Estimate] = {}
        for layer in range(1, self.about.layers + 1):
            total = self.values(Patch((layer,), component, "all"), direction)
            direct = self.values(Patch((layer,), component, "last", direct=True), direction)
            if len(total) and len(total) == len(direct):
                found[layer] = mean(total - direct)
        return found

    def save(self, folder: Path) -> None:
        """Write both files. Raises ConfigError if that fails."""
        from safetensors.numpy import save_file

        try:
            folder.mkdir(parents=True, exist_ok=True)
            arrays = {"effects": self.effects, "flips": self.flips, "kl": self.kl}
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / ARRAYS)
            text = self.about.model_dump_json(indent=1)
            (folder / DESCRIPTION).write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read both files. Raises ConfigError if they are missing, broken or do not belong together."""
        about = _read(folder / DESCRIPTION, lambda path: json_text.validated(Described, json_text.read(path)))
        arrays = _read(folder / ARRAYS, _arrays)
        wanted = (len(about.directions), len(about.patches), len(about.pairs))
        if {array.shape for array in arrays} != {wanted}:
            raise ConfigError(f"{folder}: {ARRAYS} and {DESCRIPTION} do not belong together")
        return cls(about, *arrays)


def _arrays(path: Path) -> tuple[Array, Array, Array]:
    from safetensors.numpy import load_file

    found = load_file(path)
    return found["effects"], found["flips"], found["kl"]


def _read(path: Path, read: Callable[[Path], T]) -> T:
    from safetensors import SafetensorError

    try:
        return read(path)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ConfigError(f"{path}: not a result of `interpret patch`: {error}") from error
