"""What packs differ in: the making of vectors, prompts to calibrate and to measure on, and words."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.real.pack_card import Words
from benchmarks.real.prompt_files import Prompt
from guardrail.cli import run
from guardrail.plugins.pack import Number
from guardrail.statistics.intervals import Estimate
from guardrail.vectors.values import TraitVectors

ORDINARY = "ordinary chat prompts: self-instruct, Vicuna and MT-Bench, and written ones"
"""What thresholds are calibrated on."""


class Contents(Protocol):
    """One trait of one model."""

    @property
    def trait(self) -> str:
        """Its name, and that of the main policies."""
        ...

    @property
    def dtype(self) -> str:
        """Of the weights, when it is made."""
        ...

    @property
    def words(self) -> Words:
        """For the card."""
        ...

    @property
    def pairs(self) -> Mapping[str, tuple[str, str]]:
        """Which measured sets are told apart, the high side first, by the name of the number."""
        ...

    def make(self, model: Path, data: Path, out: Path) -> None:
        """Write the vectors. data: the folder of shared prompts."""
        ...

    def calibrated_on(self, data: Path, work: Path) -> Sequence[object]:
        """The options of `calibrate` that name its prompts, which are written to a folder."""
        ...

    def measured_on(self, data: Path) -> Mapping[str, Sequence[Prompt]]:
        """Prompts by set, on which the guard is measured."""
        ...

    def known(self, vectors: TraitVectors) -> Sequence[Number]:
        """Numbers that were measured elsewhere."""
        ...

    def misses(self, numbers: Sequence[Number]) -> Sequence[str]:
        """The limits that the numbers show, in words."""
        ...


def command(*words: object) -> None:
    """A command of guardrail. Exits if it fails, after it has said why."""
    if code := run([str(word) for word in words]):
        sys.exit(code)


def number(what: str, found: Estimate, n: int) -> Number:
    """A number of the card."""
    return Number(what=what, value=found.value, low=found.low, high=found.high, n=n)
