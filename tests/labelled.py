"""Labelled prompts for a tiny model: lists of words, half of them with words of harm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from guardrail.extract.fit.rows import LabelledPrompt
from guardrail.types import Message

WORDS = [
    "apple",
    "river",
    "stone",
    "cloud",
    "lamp",
    "chair",
    "green",
    "slow",
    "paper",
    "train",
    "window",
    "garden",
    "copper",
    "violin",
    "saddle",
    "turnip",
    "marble",
    "feather",
    "harbour",
    "kettle",
    "meadow",
    "pencil",
    "quartz",
    "ribbon",
    "sparrow",
    "thimble",
    "umbrella",
    "velvet",
    "willow",
    "zephyr",
]
MARKED = ("kill", "bomb", "steal", "poison")


def texts(count: int, seed: int = 0) -> list[tuple[str, bool]]:
    """Every second text has words of harm."""
    rng = np.random.default_rng(seed)
    found: list[tuple[str, bool]] = []
    for i in range(count):
        words = rng.choice(WORDS, 7).tolist()
        if i % 2 == 0:
            words[1:6:2] = rng.choice(MARKED, 3).tolist()
        found.append((" ".join(words), i % 2 == 0))
    return found


def rows(count: int = 120, sources: Sequence[str] = ("a", "b", "c", "d")) -> list[LabelledPrompt]:
    """Prompts labelled for `harm`; the sources a and c have it, b and d do not."""
    return [
        LabelledPrompt(
            place=f"x:{i + 1}",
            messages=(Message("user", text),),
            labels={"harm": harm},
            source=sources[i % len(sources)],
        )
        for i, (text, harm) in enumerate(texts(count))
    ]


def write_lines(path: Path, *lines: str) -> Path:
    """A file of these lines."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
