"""Which heads carry a persona: chosen on half of the questions, measured on the other half."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np

from benchmarks.interpret.pool import parts
from benchmarks.interpret.swept import Swept
from guardrail.interpret.patching import Patch
from guardrail.statistics.intervals import Estimate
from guardrail.statistics.permutation import false_discovery, one_sample
from guardrail.types import Array

SEED, FEW, SHOWN, ALPHA = 19, 20, 5, 0.05
"""FEW: the strongest of this many heads are few."""


@dataclass(frozen=True, slots=True)
class Held:
    """A head that was chosen on half of the questions, with its mean effect on the other half."""

    head: str
    effect: Estimate


@dataclass(frozen=True, slots=True)
class Strongest:
    """share: of the positive effects on the other half, what the chosen heads have; the mean of both ways.

    found: heads with an effect above 0, at a false-discovery rate of 5 % over all heads; units are questions.
    """

    heads: int
    few: int
    share: float
    shares: tuple[float, float]
    held: tuple[tuple[Held, ...], tuple[Held, ...]]
    found: int
    below: int
    total: Estimate


def strongest(found: Swept, where: str, way: str) -> Strongest:
    """The heads at some tokens (`last` or `all`), one by one."""
    made = [patch for patch in found.about.patches if patch.component == "heads" and patch.where == where]
    columns = np.stack([found.column(patch, way) for patch in made])
    first = _half(found)
    halves = [(first, ~first), (~first, first)]
    few = max(1, round(len(made) / FEW))
    chosen = [np.argsort(-columns[:, here].mean(axis=1))[:few] for here, _ in halves]
    shares = [_share(columns[:, there], one) for one, (_, there) in zip(chosen, halves, strict=True)]
    by_question = _by_question(found, columns)
    q, middle = false_discovery(one_sample(by_question)), by_question.mean(axis=0)
    return Strongest(
        heads=len(made),
        few=few,
        share=float(np.mean(shares)),
        shares=(shares[0], shares[1]),
        held=tuple(
            _held(found, made, one, there, way) for one, (_, there) in zip(chosen, halves, strict=True)
        ),  # type: ignore[arg-type]
        found=int(((q < ALPHA) & (middle > 0)).sum()),
        below=int(((q < ALPHA) & (middle < 0)).sum()),
        total=found.estimate([columns.sum(axis=0)]),
    )


def _half(found: Swept) -> Array:
    """Whether a pair's question is in the first half."""
    asked = [parts(name)[:2] for name in found.names]
    every = sorted(set(asked))
    first = set(Random(SEED).sample(every, len(every) // 2))
    return np.array([one in first for one in asked])


def _share(effects: Array, chosen: Array) -> float:
    """Of the positive mean effects of all heads [heads, pairs], what some have."""
    means = effects.mean(axis=1)
    return float(means[chosen].sum() / means.clip(min=0).sum())


def _by_question(found: Swept, columns: Array) -> Array:
    """[questions, heads]: means over the pairs of a question."""
    asked = np.array([" / ".join(parts(name)[:2]) for name in found.names])
    return np.stack([columns[:, asked == one].mean(axis=1) for one in np.unique(asked)])


def _held(found: Swept, made: list[Patch], chosen: Array, there: Array, way: str) -> tuple[Held, ...]:
    other = found.of(lambda pair: bool(there[found.pairs.index(pair)]))
    shown = [made[i] for i in chosen[:SHOWN]]
    return tuple(Held(f"{p.layers[0]}.{p.head}", other.estimate([other.column(p, way)])) for p in shown)
