"""What a trait does to replies through each layer, and through each attention, MLP and head.

At the last prompt token and at the reply's first ones, values of the run that brings the trait out are put
into the run that does not, or only what they differ by along the trait vector. 0: the run answers as before,
1: as the other one (as in activation patching, arXiv 2507.20936; along one direction, arXiv 2303.02536).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guardrail.engines.transformers.activations import Site
from guardrail.extract.journal import Journal, Report, Row, locked, silent
from guardrail.extract.layers.sweep import check_fits, usable
from guardrail.extract.subject import Subject
from guardrail.interpret.patching.effects import answers, moved
from guardrail.interpret.patching.pairs import Reject
from guardrail.interpret.patching.patches import PARTS, Patch
from guardrail.interpret.patching.runs import Placed, Recorded, patched, record, shape_of
from guardrail.interpret.recommending.contrasts import Asked, Contrast, asked
from guardrail.types import Array
from guardrail.vectors.values import TraitVector, unit

JOURNAL = "causes.jsonl"
UNCHANGED = "both prompts get the same answer"
CLOSE = "the answers differ by too little"
WHERE = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseSettings:
    """least_gap: logits between the two answers of a contrast. heads: whether each head is patched."""

    least_gap: float = 0.5
    heads: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Causes:
    """Effects by contrast (first axis). NaN for layers that the vector cannot be used at.

    sufficient, needed: [n, L], along the trait vector at one layer: into the run without the trait, and the
    other way round. state: [n, L], the whole residual stream. parts: [n, L, 2], MLP and attention. heads:
    [n, L, heads], with no heads if they were not patched. groups: [n].
    """

    groups: tuple[str, ...]
    rejects: tuple[Reject, ...]
    sufficient: Array
    needed: Array
    state: Array
    parts: Array
    heads: Array

    def __len__(self) -> int:
        return len(self.groups)


def causes(
    subject: Subject,
    vector: TraitVector,
    contrasts: Sequence[Contrast],
    settings: CauseSettings,
    work: Path,
    report: Report = silent,
) -> Causes:
    """Patch every contrast in which the trait changes the reply. An interrupted run in `work` is resumed.

    Raises VectorError if the vector is for a model of another size, ExtractionError if `work` was begun with
    other contrasts, settings, vectors or another model.
    """
    check_fits(subject, vector)
    given, left = asked(subject, contrasts)
    run = _Run(subject, vector, given, settings)
    with locked(work):
        journal = Journal(work / JOURNAL, run.recipe, len(given), 1)
        rows = list(journal.complete(f"{vector.trait}: causes", run.rows, report))
    kept = [row for row in rows if "state" in row]
    return Causes(
        groups=tuple(row["group"] for row in kept),
        rejects=(*left, *(Reject(row["name"], row["reason"]) for row in rows if "reason" in row)),
        **run.arrays(kept),
    )


class _Run:
    """The rows of the journal: one contrast after another."""

    def __init__(
        self, subject: Subject, vector: TraitVector, given: Sequence[Asked], settings: CauseSettings
    ) -> None:
        self.subject, self.vector, self.given, self.settings = subject, vector, given, settings
        self.layers = usable(vector)
        shape = shape_of(subject)
        self.heads = shape.heads if settings.heads else 0
        every = range(1, shape.layers + 1)
        self.components = [
            *(Patch((layer,), part, WHERE) for layer in every for part in PARTS),
            *(Patch((layer,), "heads", WHERE, head) for layer in every for head in range(self.heads)),
        ]

    @property
    def recipe(self) -> Row:
        """What a resumed run has to agree with."""
        return {
            "settings": asdict(self.settings),
            "model": self.subject.fingerprint.weights,
            "trait": self.vector.trait,
            "vector": hashlib.sha256(self.vector.steering.tobytes()).hexdigest(),
            "contrasts": [[list(one.source), list(one.target)] for one in self.given],
        }

    def rows(self, numbers: Sequence[int]) -> list[Row]:
        """What is found of some contrasts."""
        return [self._row(self.given[number]) for number in numbers]

    def _row(self, one: Asked) -> Row:
        name = {"name": one.contrast.name, "group": one.contrast.group}
        source, target = record(self.subject, one.source), record(self.subject, one.target)
        found = answers((), source, target)
        if not found.differ:
            return {**name, "reason": UNCHANGED}
        if abs(found.gap) < self.settings.least_gap:
            return {**name, "reason": f"{CLOSE} (less than --least-gap, {self.settings.least_gap:g} logits)"}
        into = _Way(one, target, source, found.target, found.source)
        out = _Way(one, source, target, found.source, found.target)
        states = self._states(self.layers)
        return {
            **name,
            "gap": found.gap,
            "sufficient": self._effects(into, self._along(into), states),
            "needed": self._effects(out, self._along(out), states),
            "state": self._effects(into, source, self._states(range(1, self.subject.layers + 1))),
            "components": self._effects(into, source, self.components),
        }

    @staticmethod
    def _states(layers: Sequence[int]) -> list[Patch]:
        return [Patch((layer,), "resid", WHERE) for layer in layers]

    def _effects(self, way: _Way, donor: Recorded, patches: Sequence[Patch]) -> list[float]:
        effects = [0.0] * len(patches)
        placed = [Placed(patch, way.asked.columns) for patch in patches]
        for rows, logits in patched(self.subject, way.base, donor, placed):
            part = moved(logits, way.base, way.donor, way.own, way.other, ())
            for row, effect in zip(rows, part.effects, strict=True):
                effects[row] = effect
        return effects

    def _along(self, way: _Way) -> Recorded:
        """The base's last states with the donor's projection on the trait vector."""
        units = unit(self.vector.steering)
        values = {
            Site(layer): _with_projection(way, Site(layer), torch.from_numpy(units[layer]))
            for layer in self.layers
        }
        return replace(way.donor, values=values)

    def arrays(self, rows: Sequence[Row]) -> Mapping[str, Array]:
        """The arrays of the result."""
        count, layers = len(rows), self.subject.layers
        components = _stacked(rows, "components", len(self.components))
        parts = components[:, : layers * len(PARTS)].reshape(count, layers, len(PARTS))
        heads = components[:, layers * len(PARTS) :].reshape(count, layers, self.heads)
        found = {"state": _stacked(rows, "state", layers), "parts": parts, "heads": heads}
        for name in ("sufficient", "needed"):
            found[name] = np.full((count, layers), np.nan, np.float32)
            found[name][:, np.array(self.layers, int) - 1] = _stacked(rows, name, len(self.layers))
        return found


@dataclass(frozen=True, slots=True)
class _Way:
    """The base's run is changed with values of the donor's. own, other: the tokens that they answer."""

    asked: Asked
    base: Recorded
    donor: Recorded
    own: int
    other: int


def _with_projection(way: _Way, site: Site, direction: Tensor) -> Tensor:
    """[width, d_model]."""
    base, donor = (run.values[site][-way.asked.width :] for run in (way.base, way.donor))
    u = direction.to(base)
    return base + ((donor - base) @ u)[:, None] * u


def _stacked(rows: Sequence[Mapping[str, Any]], name: str, width: int) -> Array:
    """[n, width]."""
    return np.array([row[name] for row in rows], np.float32).reshape(len(rows), width)
