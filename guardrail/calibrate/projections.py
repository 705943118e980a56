"""Reads the projections of benign prompts and replies from the model, in blocks to save memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guardrail.calibrate.sample import BenignPrompt
from guardrail.engines.transformers.activations import Site
from guardrail.engines.transformers.batches import bucketed, padded
from guardrail.errors import CalibrationError
from guardrail.types import Array, Probe
from guardrail.vectors.values import TraitVector, TraitVectors, unit

if TYPE_CHECKING:
    from guardrail.extract.subject import Subject

Advance: TypeAlias = Callable[[int], None]
"""Called with the number of prompts completed since the last call."""

BLOCK = 256
"""How many prompts' states are kept in memory at a time."""
TOKENS_AT_ONCE = 2048
"""How many tokens' states, at all layers, are kept in memory at a time."""
KEPT_TOKENS = 4_000
"""The maximum number of tokens behind the steering statistics: a uniform sample of all tokens read."""

Column: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """One direction per (trait, layer); projection = <h, weights> + offset."""

    columns: tuple[Column, ...]
    weights: Array = field(repr=False)
    offsets: Array = field(repr=False)

    def at(self, layer: int) -> list[int]:
        """The columns that read this layer."""
        return [i for i, (_, own) in enumerate(self.columns) if own == layer]


@dataclass(frozen=True, slots=True, eq=False)
class Projections:
    """values: [n, columns] float32."""

    columns: tuple[Column, ...]
    values: Array = field(repr=False)

    def of(self, trait: str, layer: int) -> NDArray[np.float32]:
        """[n]."""
        return self.values[:, self.columns.index((trait, layer))]


def probes(vectors: TraitVectors, others: Mapping[str, Probe] | None = None) -> Directions:
    """The directions that detect: each trait's probe at every usable layer, and the plugins' probes."""
    rows = [(t, i, v.probe[i], float(v.offset[i])) for t, v in vectors.items() for i in _usable(v)]
    rows += [(t, p.layer, p.weights, p.offset) for t, p in (others or {}).items()]
    return _directions(rows)


def followed(vectors: TraitVectors, others: Mapping[str, set[int]]) -> Directions | None:
    """The directions that follow replies: each trait's probe at its own layer and at those in policies."""
    rows = [
        (t, i, v.probe[i], float(v.offset[i]))
        for t, v in vectors.items()
        for i in _usable(v)
        if i == v.layer or i in others.get(t, ())
    ]
    return _directions(rows) if rows else None


def steering(vectors: TraitVectors) -> Directions:
    """The directions that steer: each trait's unit steering vector at every usable layer."""
    units = {trait: unit(vector.steering) for trait, vector in vectors.items()}
    return _directions([(t, i, units[t][i], 0.0) for t, v in vectors.items() for i in _usable(v)])


def _usable(vector: TraitVector) -> list[int]:
    return [i for i in range(1, vector.layers + 1) if vector.usable(i)]


def _directions(rows: Sequence[tuple[str, int, Array, float]]) -> Directions:
    if not rows:
        raise CalibrationError("there is no trait to calibrate")
    columns = tuple((trait, layer) for trait, layer, _, _ in rows)
    weights = np.stack([weights for _, _, weights, _ in rows]).astype(np.float32)
    return Directions(columns, weights, np.array([offset for *_, offset in rows], np.float32))


def prompt_projections(
    subject: Subject, prompts: Sequence[BenignPrompt], directions: Directions, advance: Advance
) -> Projections:
    """Projections of each prompt's last token. Raises CalibrationError if one is not finite."""
    values = np.empty((len(prompts), len(directions.columns)), np.float32)
    for block in bucketed([len(prompt.ids) for prompt in prompts], BLOCK):
        rows = [prompts[i].ids for i in block]
        states = subject.means(rows, [[(len(ids) - 1, len(ids))] for ids in rows])[:, 0]
        values[block] = _projected(states, directions)
        advance(len(block))
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise CalibrationError(f"{prompts[bad[0]].name}: the model's activations are not finite")
    return Projections(directions.columns, values)


def _projected(states: Array, directions: Directions) -> Array:
    """[n, columns] of states [n, L + 1, d_model]."""
    values = np.empty((len(states), len(directions.columns)), np.float32)
    for layer in {layer for _, layer in directions.columns}:
        here = directions.at(layer)
        values[:, here] = states[:, layer] @ directions.weights[here].T + directions.offsets[here]
    return values


@dataclass(frozen=True, slots=True)
class Spoken:
    """A benign prompt with the unguarded model's reply: all tokens, and where the reply begins."""

    ids: tuple[int, ...]
    start: int


def speak(
    subject: Subject, prompts: Sequence[BenignPrompt], *, new_tokens: int, seed: int, advance: Advance
) -> list[Spoken]:
    """The unguarded model's replies, sampled at temperature 1."""
    spoken: list[Spoken] = []
    for first in range(0, len(prompts), subject.rows):
        block = prompts[first : first + subject.rows]
        seeds = [seed + first + i for i in range(len(block))]
        replies = subject.replies([p.messages for p in block], seeds=seeds, max_new_tokens=new_tokens)
        for prompt, reply in zip(block, replies, strict=True):
            spoken.append(Spoken((*prompt.ids, *reply.ids), len(prompt.ids)))
        advance(len(block))
    return spoken


@dataclass(frozen=True, slots=True, eq=False)
class TokenProjections:
    """The projections of a uniform sample of the tokens read, and the number of tokens read."""

    projections: Projections
    tokens: int


def token_projections(
    subject: Subject, spoken: Sequence[Spoken], directions: Directions, seed: int
) -> TokenProjections:
    """Projections of prompt and reply tokens."""
    reservoir = _Reservoir(KEPT_TOKENS, len(directions.columns), seed)
    for batch in _batches(spoken):
        reservoir.add(_token_values(subject, [spoken[i].ids for i in batch], directions))
    return TokenProjections(Projections(directions.columns, reservoir.values), reservoir.seen)


def reply_projections(
    subject: Subject, spoken: Sequence[Spoken], directions: Directions
) -> list[NDArray[np.float32]]:
    """[tokens, columns] for each reply, without its last token, which the model never reads."""
    found: dict[int, NDArray[np.float32]] = {}
    for batch in _batches(spoken):
        rows = [spoken[i].ids[:-1] for i in batch]
        values = _token_values(subject, rows, directions) + directions.offsets
        ends = np.cumsum([len(row) for row in rows])
        for i, row, part in zip(batch, rows, np.split(values, ends[:-1]), strict=True):
            found[i] = part[spoken[i].start : len(row)]
    return [found[i] for i in range(len(spoken)) if len(found[i])]


def _batches(spoken: Sequence[Spoken]) -> Iterator[list[int]]:
    lengths = [len(one.ids) for one in spoken]
    yield from bucketed(lengths, max(1, TOKENS_AT_ONCE // max(lengths, default=1)))


def _token_values(subject: Subject, rows: Sequence[Sequence[int]], directions: Directions) -> Array:
    import torch

    ids, mask = padded(rows, 0, left=False, device=subject.device)
    layers = sorted({layer for _, layer in directions.columns})
    found = subject.activations.read(ids, mask, [Site(layer) for layer in layers], "all")
    values = np.empty((int(mask.sum()), len(directions.columns)), np.float32)
    for layer in layers:
        here = directions.at(layer)
        weights = torch.from_numpy(directions.weights[here]).to(subject.device)
        values[:, here] = (found[Site(layer)][mask.bool()].float() @ weights.T).cpu().numpy()
    return values


class _Reservoir:
    """A uniform sample of at most `size` rows from a stream: those with the smallest random keys."""

    def __init__(self, size: int, width: int, seed: int) -> None:
        self.size, self.seen = size, 0
        self.values: Array = np.empty((0, width), np.float32)
        self._keys: NDArray[np.float64] = np.empty(0)
        self._rng = np.random.default_rng(seed)

    def add(self, rows: Array) -> None:
        self.seen += len(rows)
        keys = np.concatenate([self._keys, self._rng.random(len(rows))])
        values = np.concatenate([self.values, rows])
        kept = np.argsort(keys)[: self.size]
        self._keys, self.values = keys[kept], values[kept]
