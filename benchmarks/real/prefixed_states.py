"""States of prompts at a few layers, for a slow model: what prompts begin with alike is read once.

Nothing above the last layer is computed. Each prompt has a file, so that a sample can grow. Not fit for
`prompt_mean`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.real.persona_vectors import said
from guardrail.engines import Prompt
from guardrail.engines.transformers.activations import Prefix, Site
from guardrail.engines.transformers.batches import averaging
from guardrail.extract.subject import Subject
from guardrail.types import Array, Message, Place, Position

POSITIONS: tuple[Position, ...] = ("last", "user_mean")
AT_ONCE = 64
"""Prompts; an interrupted run loses at most these."""


@dataclass(frozen=True, slots=True)
class PrefixedStates:
    """Reads one model at these layers. `folder` is for one choice of layers."""

    subject: Subject
    layers: tuple[int, ...]
    folder: Path
    _prefixes: dict[tuple[int, ...], Prefix | None] = field(
        default_factory=dict[tuple[int, ...], "Prefix | None"]
    )

    def stored(self, name: str, prompts: Sequence[Sequence[Message]]) -> dict[Place, Array]:
        """[n, d_model] at each layer and position."""
        files = [self._file(messages) for messages in prompts]
        missing = [i for i, file in enumerate(files) if not file.is_file()]
        self.folder.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(missing), AT_ONCE):
            rows = missing[start : start + AT_ONCE]
            read = self.states([self.subject.render(prompts[i], POSITIONS) for i in rows])
            for i, states in zip(rows, read, strict=True):
                _save(files[i], states)
            said(f"{name}: states", start + len(rows), len(missing))
        every = np.stack([np.load(file) for file in files])
        return {
            (layer, position): every[:, place, row]
            for place, position in enumerate(POSITIONS)
            for row, layer in enumerate(self.layers)
        }

    def _file(self, messages: Sequence[Message]) -> Path:
        weights, dtype = self.subject.fingerprint.weights, self.subject.model.dtype
        text = f"{weights} {dtype} {self.layers} {[m.as_dict() for m in messages]}"
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"

    def states(self, prompts: Sequence[Prompt]) -> Array:
        """[n, positions, layers, d_model] float32."""
        shape = (len(prompts), len(POSITIONS), len(self.layers), self.subject.d_model)
        found = np.zeros(shape, np.float32)
        before: dict[tuple[int, ...], list[int]] = {}
        for i, prompt in enumerate(prompts):
            before.setdefault(tuple(prompt.ids[: _user(prompt)]), []).append(i)
        for ids, rows in before.items():
            for batch in self.subject.batches([len(prompts[i].ids) - len(ids) for i in rows]):
                own = [rows[i] for i in batch]
                found[own] = self._batch(ids, [prompts[i] for i in own])
        return found

    def _batch(self, before: tuple[int, ...], prompts: Sequence[Prompt]) -> Array:
        """Of prompts that begin with the same tokens."""
        prefix = self._prefix(before)
        cut = prefix.tokens if prefix else 0
        ids, _ = self.subject.local.padded([prompt.ids[cut:] for prompt in prompts], left=False)
        runs = [
            [[(a - cut, b - cut) for a, b in prompt.spans[position]] for position in POSITIONS]
            for prompt in prompts
        ]
        sites = [Site(layer) for layer in self.layers]
        weights = averaging(runs, ids.shape[1]).to(self.subject.device)
        read = self.subject.activations.read(ids, None, sites, weights, prefix=prefix)
        return torch.stack([read[site].cpu() for site in sites], dim=2).numpy()

    def _prefix(self, before: tuple[int, ...]) -> Prefix | None:
        if before not in self._prefixes:
            ids = torch.tensor([before], device=self.subject.device)
            self._prefixes[before] = self.subject.activations.prefix(ids) if before else None
        return self._prefixes[before]


def _user(prompt: Prompt) -> int:
    """Where the text of the last user turn begins."""
    return min(start for start, _ in prompt.spans["user_mean"])


def _save(file: Path, states: Array) -> None:
    part = file.with_suffix(".part.npy")
    np.save(part, states)
    part.replace(file)
