"""What all chunks of a part found, as one: a column of effects for each patch and direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.interpret.crossed import Statistic, crossed, first
from benchmarks.interpret.pool import TOPIC, parts
from guardrail.engines.transformers.activations import Component
from guardrail.interpret.patching import Patch, PatchResult
from guardrail.interpret.patching.results import Described, Kept
from guardrail.statistics.intervals import Estimate
from guardrail.types import Array

LONGEST_ECHO = 3
"""So many letters of the word have to be in an answer that echoes it, or all of a shorter word."""
Chosen = Callable[[Kept], bool]


@dataclass(frozen=True)
class Swept:
    """Effects [directions, patches, pairs] of the pairs of some chunks."""

    about: Described
    pairs: tuple[Kept, ...]
    effects: Array

    @classmethod
    def load(cls, folder: Path, part: str) -> Swept | None:
        """All chunks that were run; None without any."""
        found = [PatchResult.load(path.parent) for path in sorted(folder.glob(f"{part}-*/patch.json"))]
        if not found:
            return None
        pairs = tuple(pair for one in found for pair in one.about.pairs)
        return cls(found[0].about, pairs, np.concatenate([one.effects for one in found], axis=-1))

    def of(self, chosen: Chosen) -> Swept:
        """Some of the pairs."""
        places = [i for i, pair in enumerate(self.pairs) if chosen(pair)]
        return Swept(self.about, tuple(self.pairs[i] for i in places), self.effects[..., places])

    @property
    def names(self) -> list[str]:
        """Of the pairs."""
        return [pair.name for pair in self.pairs]

    def column(self, patch: Patch, way: str) -> Array:
        """The effect of a patch on each pair; NaN where a pair lacks its tokens."""
        return self.effects[self.about.directions.index(way), self.about.patches.index(patch)]

    def window(self, part: Component, first: int, where: str, way: str) -> Array:
        """The joint effect of a window of layers."""
        return self.column(Patch(tuple(range(first, first + self.about.window)), part, where), way)

    def layer(self, part: Component, layer: int, where: str, way: str, *, direct: bool = False) -> Array:
        """The effect of one layer."""
        return self.column(Patch((layer,), part, where, direct=direct), way)

    def estimate(self, columns: Sequence[Array], statistic: Statistic = first) -> Estimate:
        """A statistic of the means of columns, over the pairs that have all of them."""
        there = ~np.isnan(np.stack(columns)).any(axis=0)
        names = [name for name, here in zip(self.names, there, strict=True) if here]
        return crossed(names, [column[there] for column in columns], statistic)

    def curve(self, part: Component, where: str, way: str, *, direct: bool = False) -> dict[int, Estimate]:
        """The mean effect of one layer after another."""
        made = ((n, Patch((n,), part, where, direct=direct)) for n in range(self.about.layers + 1))
        there = set(self.about.patches)
        return {n: self.estimate([self.column(patch, way)]) for n, patch in made if patch in there}


def persona(pair: Kept) -> bool:
    """Not a topic."""
    return parts(pair.name)[0] != TOPIC


def echoes(pair: Kept) -> bool:
    """An answer of the pair is the beginning of its own word."""
    words = parts(pair.name)[2].split(", ")
    return any(_echo(*two) for two in zip((pair.source, pair.target), words, strict=True))


def _echo(answer: str, word: str) -> bool:
    said = answer.strip().lower()
    return word.lower().startswith(said) and len(said) >= min(LONGEST_ECHO, len(word))


def kinds(pairs: Sequence[Kept]) -> Iterator[str]:
    """The kinds of some pairs, in the order in which they come."""
    yield from sorted({parts(pair.name)[0] for pair in pairs})
