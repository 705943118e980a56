"""States of prompts at every layer and position, read once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.real.persona_vectors import said
from guardrail.extract.subject import Subject
from guardrail.types import Array, Message, Place, Position

POSITIONS: tuple[Position, ...] = ("last", "user_mean", "prompt_mean")
BLOCK = 128
"""Prompts in a file; an interrupted run repeats at most one."""


def stored(
    subject: Subject,
    name: str,
    prompts: Sequence[Sequence[Message]],
    folder: Path,
    positions: tuple[Position, ...] = POSITIONS,
) -> dict[Place, Array]:
    """[n, d_model] at each layer 1 to L and position. A folder is for one choice of positions."""
    blocks = [prompts[i : i + BLOCK] for i in range(0, len(prompts), BLOCK)]
    read: list[Array] = []
    for number, block in enumerate(blocks):
        read.append(_block(subject, block, folder, positions))
        said(f"{name}: states", min((number + 1) * BLOCK, len(prompts)), len(prompts))
    every = np.concatenate(read)
    return {
        (layer, position): every[:, place, layer]
        for place, position in enumerate(positions)
        for layer in range(1, subject.layers + 1)
    }


def _block(
    subject: Subject, prompts: Sequence[Sequence[Message]], folder: Path, positions: tuple[Position, ...]
) -> Array:
    """[n, positions, L + 1, d_model]."""
    text = f"{subject.fingerprint.weights} {subject.model.dtype} {[m.as_dict() for p in prompts for m in p]}"
    file = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        rendered = [subject.local.renderer.render(messages, (), positions) for messages in prompts]
        spans = [[one.spans[position][0] for position in positions] for one in rendered]
        part = file.with_suffix(".part.npy")
        np.save(part, subject.means([one.ids for one in rendered], spans))
        part.replace(file)
    return np.load(file)
