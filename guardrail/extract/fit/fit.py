"""From labelled prompts to a vector file: reads the model, chooses a read-out for each trait, and fits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from guardrail.errors import ConfigError
from guardrail.extract.fit.folds import Check, Fold, Rows, Stratum, checks, strata_of
from guardrail.extract.fit.prepared import Prepared
from guardrail.extract.fit.readout import Candidate, Readout, Task, fit_readout
from guardrail.extract.fit.record import Origin, record
from guardrail.extract.fit.rows import MINIMUM
from guardrail.extract.fit.selection import Search, States, choose
from guardrail.extract.fit.states import Rendered, stored_states
from guardrail.extract.journal import Report, silent
from guardrail.extract.subject import Subject
from guardrail.plugins.protocols import LabelledMethod
from guardrail.types import POSITIONS, Array, Position, ProbeSite
from guardrail.vectors.provenance import LabelledFit, Provenance, TraitSource
from guardrail.vectors.values import TraitVector, TraitVectors

GIVEN = "the validation part"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """What is tried. `layers`: None for all. `most_places`: the most places that a probe sums over."""

    methods: tuple[LabelledMethod, ...]
    layers: tuple[int, ...] | None = None
    positions: tuple[Position, ...] = POSITIONS
    most_places: int = 3
    seed: int = 0

    @property
    def read(self) -> tuple[Position, ...]:
        """The positions to read: steering vectors come from the last token."""
        wanted: set[Position] = {"last", *self.positions}
        return tuple(position for position in POSITIONS if position in wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedTrait:
    """A vector, and how it was found."""

    vector: TraitVector
    fit: LabelledFit
    source: TraitSource


def fit(
    subject: Subject,
    given: Prepared,
    prompts: Rendered,
    settings: FitSettings,
    folder: Path,
    created: str,
    report: Report = silent,
) -> TraitVectors:
    """Vectors for all traits of the prepared prompts. `prompts`: the same, rendered for the model.

    `folder` keeps the states that were read. Raises ExtractionError if they are not finite.
    """
    states = stored_states(subject, prompts, folder, report)
    usable = replace(settings, positions=usable_positions(prompts, settings.positions))
    found = {trait: fit_trait(trait, given, states, usable, report) for trait in given.traits}
    names = " or ".join(method.name for method in settings.methods)
    provenance = Provenance(
        fingerprint=subject.fingerprint,
        method=f"labelled prompts; steering: difference; probe: {names}",
        created=created,
        position="last",
        seeds=(settings.seed,),
        traits={trait: one.source for trait, one in found.items()},
        fits={trait: one.fit for trait, one in found.items()},
    )
    return TraitVectors({trait: one.vector for trait, one in found.items()}, provenance)


def usable_positions(prompts: Rendered, wanted: Sequence[Position]) -> tuple[Position, ...]:
    """Those wanted, but `tool_mean` only if enough prompts have tool results."""
    with_tools = sum(bool(prompt.spans.get("tool_mean")) for prompt in prompts.prompts)
    found: tuple[Position, ...] = tuple(p for p in wanted if p != "tool_mean" or with_tools >= 2 * MINIMUM)
    if not found:
        raise ConfigError(f"tool_mean: {with_tools} prompts have tool results; it takes {2 * MINIMUM}")
    return found


def fit_trait(
    trait: str,
    given: Prepared,
    states: States,
    settings: FitSettings,
    report: Report = silent,
) -> FittedTrait:
    """One trait's vector. states: [n, d_model] at each place, for the prepared prompts."""
    layers = sorted({layer for layer, _ in states})
    parts = _parts(trait, given, settings.seed)
    _check_folds(parts)
    search = Search(
        layers=settings.layers or tuple(layers),
        positions=settings.positions,
        methods=settings.methods,
        most_places=settings.most_places,
    )
    choice = choose(parts.task, states, parts.checks, parts.scored, search, report)
    methods = {method.name: method for method in settings.methods}
    vector = _vector(parts, states, choice.chosen.candidate, methods, layers)
    origin = Origin(sha256=given.sha256, repeated=given.repeated, prompts=given.digests, layers=tuple(layers))
    fit, source = record(parts.task, parts.checks, parts.scored, choice, origin)
    return FittedTrait(vector=vector, fit=fit, source=source)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What one trait is fitted on (`final` in the end), and what its candidates are scored on."""

    task: Task
    checks: tuple[Check, ...]
    scored: tuple[Stratum, ...]
    final: Rows


def _parts(trait: str, given: Prepared, seed: int) -> _Parts:
    labels = np.array([row.labels.get(trait, False) for row in given.rows])
    rows = np.flatnonzero([trait in row.labels for row in given.rows])
    split = np.array([row.split or "" for row in given.rows])
    if not split[0]:
        strata = strata_of(given.rows, labels, rows)
        task = Task(trait=trait, labels=labels, strata=strata)
        return _Parts(
            task=task, checks=checks(given.rows, strata, given.groups, seed), scored=strata, final=rows
        )
    train, test = rows[split[rows] == "train"], rows[split[rows] == "validation"]
    return _Parts(
        task=Task(trait=trait, labels=labels, strata=strata_of(given.rows, labels, train)),
        checks=(Check(name=GIVEN, folds=(Fold(name="all of it", train=train, test=test),)),),
        scored=strata_of(given.rows, labels, test),
        final=train,
    )


def _check_folds(parts: _Parts) -> None:
    """Raises ConfigError if what is left to fit on lacks a class."""
    for fold in (fold for check in parts.checks for fold in check.folds):
        if min(map(len, parts.task.sides(fold.train))) < MINIMUM // 2:
            raise ConfigError(
                f"{parts.task.trait}: nearly all prompts of a class are near duplicates of one another, so "
                "none can be held out; give prompts that differ"
            )


def _vector(
    parts: _Parts,
    states: States,
    chosen: Candidate,
    methods: Mapping[str, LabelledMethod],
    layers: Sequence[int],
) -> TraitVector:
    """The chosen read-out at its layer, and the same way to fit at every other layer."""
    layer, position = chosen.places[-1]

    def readout(candidate: Candidate) -> Readout:
        there = {place: states[place] for place in candidate.places}
        return fit_readout(there, candidate, methods[chosen.method], parts.task, parts.final)

    rows = {row: readout(replace(chosen, places=((row, position),))) for row in layers}
    probe = _by_layer({row: one.weights[0] for row, one in rows.items()})
    offset = _by_layer({row: np.array(one.offset, np.float32) for row, one in rows.items()})
    summed: tuple[ProbeSite, ...] = ()
    if len(chosen.places) > 1:
        whole = readout(chosen)
        summed, offset[layer] = _sites(whole), whole.offset
    return TraitVector(
        parts.task.trait,
        _steering(parts, states, layers),
        probe,
        offset,
        layer=layer,
        position=position,
        normalised=chosen.normalised,
        sites=summed,
        unusable=tuple(row for row in range(1, max(layers)) if row not in layers),
    )


def _sites(readout: Readout) -> tuple[ProbeSite, ...]:
    chosen = readout.candidate
    return tuple(
        ProbeSite(
            layer=layer,
            position=position,
            weights=weights,
            normalised=chosen.normalised,
            absent=absent if position == "tool_mean" else 0.0,
        )
        for (layer, position), weights, absent in zip(
            chosen.places, readout.weights, readout.absent, strict=True
        )
    )


def _steering(parts: _Parts, states: States, layers: Sequence[int]) -> Array:
    """[L + 1, d_model]: difference of means at the last token, sources weighed alike; row 0 is zero."""
    positive, negative = parts.task.sides(parts.final)
    with_it, without = parts.task.sides_weights(parts.final)
    gaps = {
        row: (with_it @ states[row, "last"][positive] - without @ states[row, "last"][negative]).astype(
            np.float32
        )
        for row in layers
    }
    return _by_layer(gaps)


def _by_layer(rows: Mapping[int, Array]) -> Array:
    """[L + 1, ...]: the rows at their layers. Those that were not read are zero, as layer 0 is."""
    first = next(iter(rows.values()))
    found = np.zeros((max(rows) + 1, *first.shape), first.dtype)
    for layer, row in rows.items():
        found[layer] = row
    return found
