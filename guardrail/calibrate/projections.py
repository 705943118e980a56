"""Reads the projections of benign prompts and replies from the model, in blocks to save memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guardrail.calibrate.sample import BenignPrompt
from guardrail.engines import Prompt
from guardrail.engines.transformers.activations import Site
from guardrail.engines.transformers.batches import bucketed, padded
from guardrail.errors import CalibrationError
from guardrail.policy.rules import CompiledCondition
from guardrail.policy.terms import projections
from guardrail.types import Array, Place, Position, Probe
from guardrail.vectors.values import TraitVector, TraitVectors, unit

if TYPE_CHECKING:
    from guardrail.extract.subject import Subject

Advance: TypeAlias = Callable[[int], None]
"""Called with the number of prompts completed since the last call."""

BLOCK = 32
"""How many prompts' states are kept in memory at a time. Progress is reported after each block."""
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

    def beside(self, other: Directions) -> Directions:
        """The columns of both, these first."""
        return Directions(
            (*self.columns, *other.columns),
            np.concatenate([self.weights, other.weights]),
            np.concatenate([self.offsets, other.offsets]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Projections:
    """values: [n, columns] float32; NaN for a probe of tool results alone on a prompt without any."""

    columns: tuple[Column, ...]
    values: Array = field(repr=False)

    def of(self, trait: str, layer: int) -> NDArray[np.float32]:
        """[n]."""
        return self.values[:, self.columns.index((trait, layer))]

    def readable(self) -> Projections:
        """The columns that read something in any prompt: some may have no tool results at all."""
        some = np.flatnonzero(~np.isnan(self.values).all(axis=0))
        return Projections(tuple(self.columns[i] for i in some), self.values[:, some])

    def strengths(self, condition: CompiledCondition) -> NDArray[np.float32]:
        """[n]: the prompts' projections, signed so that greater ones fire first; NaN never fires."""
        values = self.of(condition.trait, condition.layer or 0)
        return np.nan_to_num(values if condition.fires == "above" else -values, nan=-np.inf)


def probes(vectors: TraitVectors, others: Mapping[str, Probe] | None = None) -> dict[Column, Probe]:
    """What detects: each trait's probe at every usable layer, and the plugins' probes.

    Raises CalibrationError if there is none.
    """
    found = {(t, i): v.probe_at(i) for t, v in vectors.items() for i in _usable(v)}
    found |= {(t, p.layer): p for t, p in (others or {}).items()}
    if not found:
        raise CalibrationError("there is no trait to calibrate")
    return found


def positions(probes: Iterable[Probe]) -> list[Position]:
    """The positions that probes read, each once."""
    return sorted({site.position for probe in probes for site in probe.sites})


def followed(vectors: TraitVectors, others: Mapping[str, set[int]]) -> Directions:
    """The directions that follow replies: each trait's probe at its own layer and at those in policies.

    Probes that read more than one token follow none.
    """
    rows = [
        (t, i, v.probe[i], float(v.offset[i]))
        for t, v in vectors.items()
        for i in _usable(v)
        if v.probe_at(i).plain and (i == v.layer or i in others.get(t, ()))
    ]
    return _directions(vectors, rows)


def steering(vectors: TraitVectors) -> Directions:
    """The directions that steer: each trait's unit steering vector at every usable layer."""
    units = {trait: unit(vector.steering) for trait, vector in vectors.items()}
    return _directions(vectors, [(t, i, units[t][i], 0.0) for t, v in vectors.items() for i in _usable(v)])


def _usable(vector: TraitVector) -> list[int]:
    return [i for i in range(1, vector.layers + 1) if vector.usable(i)]


def _directions(vectors: TraitVectors, rows: Sequence[tuple[str, int, Array, float]]) -> Directions:
    columns = tuple((trait, layer) for trait, layer, _, _ in rows)
    weights = np.array([weights for _, _, weights, _ in rows], np.float32)
    offsets = np.array([offset for *_, offset in rows], np.float32)
    return Directions(columns, weights.reshape(len(rows), vectors.provenance.fingerprint.d_model), offsets)


def prompt_projections(
    subject: Subject, prompts: Sequence[BenignPrompt], probes: Mapping[Column, Probe], advance: Advance
) -> Projections:
    """What probes read of each prompt. Raises CalibrationError for a projection that is not finite."""
    values = np.empty((len(prompts), len(probes)), np.float32)
    for block in bucketed([len(prompt.ids) for prompt in prompts], BLOCK):
        values[block] = _block_values(subject, [prompts[i] for i in block], list(probes.values()))
        advance(len(block))
    bad = np.flatnonzero(np.isinf(values).any(axis=1))
    if len(bad):
        raise CalibrationError(f"{prompts[bad[0]].name}: the model's activations are not finite")
    return Projections(tuple(probes), values)


def _block_values(subject: Subject, prompts: Sequence[BenignPrompt], probes: Sequence[Probe]) -> Array:
    """[n, probes]: infinite for a prompt whose states are not finite, NaN if there is nothing to read."""
    read = positions(probes)
    rendered = [_rendered(subject, prompt, read) for prompt in prompts]
    states = subject.states(rendered, read)
    there = np.array([[bool(prompt.spans[position]) for position in read] for prompt in rendered])
    wrong = (~np.isfinite(states).all(axis=(2, 3)) & there).any(axis=1)
    layers = {site.layer for probe in probes for site in probe.sites}
    by_place: dict[Place, Array] = {
        (layer, position): states[:, j, layer] for j, position in enumerate(read) for layer in layers
    }
    values = projections(probes, by_place)
    if "tool_mean" in read:
        nothing, only = ~there[:, read.index("tool_mean")], [probe.only_results for probe in probes]
        values[nothing[:, None] & np.array(only)] = np.nan
    values[wrong] = np.inf
    return values


def _rendered(subject: Subject, prompt: BenignPrompt, read: Sequence[Position]) -> Prompt:
    if read == ["last"]:
        return Prompt(prompt.ids, spans={"last": ((len(prompt.ids) - 1, len(prompt.ids)),)})
    return subject.render(prompt.messages, read)


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
    """What was read of conversations.

    steering: the projections of a uniform sample of all tokens, of which there were `tokens`. replies:
    [tokens, columns] for each reply, without its last token, which the model never reads.
    """

    steering: Projections
    tokens: int
    replies: list[NDArray[np.float32]]


def token_projections(
    subject: Subject, spoken: Sequence[Spoken], steering: Directions, followed: Directions, seed: int
) -> TokenProjections:
    """Projections of prompt and reply tokens. Each conversation is read once.

    Raises CalibrationError for a projection that is not finite.
    """
    reservoir = _Reservoir(KEPT_TOKENS, len(steering.columns), seed)
    found: dict[int, NDArray[np.float32]] = {}
    both = steering.beside(followed)
    for batch in subject.batches([len(one.ids) for one in spoken], TOKENS_AT_ONCE):
        rows = [spoken[i].ids for i in batch]
        values = _token_values(subject, rows, both)
        if not np.isfinite(values).all():
            # NaN means "nothing to read" in a table, and would be left out of it
            raise CalibrationError("the model's activations in a benign conversation are not finite")
        steered, detected = np.split(values, [len(steering.columns)], axis=1)
        reservoir.add(steered)
        ends = np.cumsum([len(row) for row in rows])
        for i, part in zip(batch, np.split(detected, ends[:-1]), strict=True):
            found[i] = part[spoken[i].start : -1]
    return TokenProjections(
        Projections(steering.columns, reservoir.values),
        reservoir.seen,
        [found[i] for i in range(len(spoken)) if len(found[i])],
    )


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
    return values + directions.offsets


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
