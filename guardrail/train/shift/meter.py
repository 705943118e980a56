"""Measures activation shifts: a model's states at the last prompt token against those of its base.

shift = <mean_p h_tuned(p) - mean_p h_base(p), v> / |v| over prompts p at the last prompt token, with the
base's vectors v (arXiv 2507.21509, 4.2). Both models read the same tokens, so the shift is a mean of
differences, and its interval comes from resampling prompts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from guardrail.errors import ConfigError
from guardrail.extract.journal import Report, silent
from guardrail.extract.layers.sweep import Questions
from guardrail.extract.subject import Subject
from guardrail.statistics.intervals import Numbers, column_means
from guardrail.train.shift.descent import Ancestor
from guardrail.train.shift.mixing import Mixing
from guardrail.train.shift.projections import Conversations, Project, encoded, projected, unit_vectors
from guardrail.train.shift.results import Descent, LayerShift, Shift, TraitShift
from guardrail.traits import TraitDefinition
from guardrail.types import Message
from guardrail.vectors.values import TraitVector, TraitVectors

FEWEST, FEW = 2, 10
DEPTH = 0.55
"""Where a trait is quoted whose vector file names no layer: layer 0.55 L, where vectors steer best."""


def trait_questions(definitions: Sequence[TraitDefinition]) -> dict[str, Conversations]:
    """Each trait's evaluation questions, which no vector was made from, without a system prompt."""
    return {one.name: [(Message("user", question),) for question in one.evaluation] for one in definitions}


@dataclass(frozen=True, slots=True)
class Reading:
    """A model's projections on all traits' unit vectors: by trait, [n, L + 1, traits] on its prompts."""

    name: str
    by_trait: Mapping[str, Numbers] = field(repr=False)


class ShiftMeter:
    """A base model, its vectors, and the prompts of each trait to measure; holds no model.

    prompts: by trait, conversations that end where the reply begins. definitions: how the base is asked for
    traits, to learn how far each drags the others along; all traits in the vector file count as others.
    layer: the one to quote for every trait instead of its vector's own. mixing: that of another meter of the
    same base, to save asking again. project: reads a model in place of `projected`. Raises VectorError for
    vectors of another model, ConfigError for unknown traits and layers and too few prompts, PromptError for
    prompts that the model cannot read.
    """

    def __init__(
        self,
        base: Subject,
        vectors: TraitVectors,
        prompts: Mapping[str, Conversations],
        *,
        definitions: Sequence[TraitDefinition] = (),
        name: str = "base",
        layer: int | None = None,
        mixing: Mixing | None = None,
        report: Report = silent,
        project: Project = projected,
    ) -> None:
        self.ancestor, self.vectors, self._report = Ancestor.of(base, name), vectors, report
        self.ancestor.check_vectors(vectors)
        self._project = project
        check_prompts(prompts, vectors)
        self._quoted = {trait: quoted_layer(vectors[trait], layer) for trait in prompts}
        self._units = unit_vectors(vectors)
        self._rows = {trait: encoded(base, trait, asked) for trait, asked in prompts.items()}
        self.prompts_sha256 = _digest(prompts)
        self.base = self._read(base, name)
        self.mixing = mixing or self._mixing(base, [one for one in definitions if one.name in vectors])

    def read(self, tuned: Subject, name: str = "tuned") -> Reading:
        """Read a finetune, to measure from it later. Raises ModelError if it is no finetune of the base."""
        self.ancestor.descent(tuned, name)
        return self._read(tuned, name)

    def measure(self, tuned: Subject, name: str = "tuned", since: Reading | None = None) -> Shift:
        """The shift of a finetune, since the base or an earlier reading.

        Raises ModelError if it is no finetune of the base, or if its states are not finite.
        """
        descent = self.ancestor.descent(tuned, name)
        return self._shift(descent, since or self.base, self._read(tuned, name))

    def _read(self, subject: Subject, name: str) -> Reading:
        found: dict[str, Numbers] = {}
        done, total = 0, sum(map(len, self._rows.values()))
        for trait, rows in self._rows.items():
            self._report(f"{name}: prompts", done, total)
            found[trait] = self._project(subject, name, rows, self._units)
            done += len(rows)
        self._report(f"{name}: prompts", done, total)
        return Reading(name, found)

    def _mixing(self, base: Subject, definitions: Sequence[TraitDefinition]) -> Mixing:
        asking: dict[str, Numbers] = {}
        plain: dict[str, Numbers] = {}
        for one in definitions:
            questions = Questions.of(one)
            for side, prompts in ((asking, questions.asking), (plain, questions.plain)):
                rows = encoded(base, one.name, [prompt.messages for prompt in prompts])
                side[one.name] = self._project(base, self.ancestor.name, rows, self._units)
        return Mixing.of(list(self.vectors), self._units, asking, plain)

    def _shift(self, descent: Descent, before: Reading, after: Reading) -> Shift:
        traits = {
            trait: self._trait(trait, after.by_trait[trait] - before.by_trait[trait]) for trait in self._rows
        }
        return Shift(
            base=self.ancestor.name,
            tuned=after.name,
            since=before.name,
            descent=descent,
            vectors_sha256=self.vectors.sha256,
            prompts_sha256=self.prompts_sha256,
            traits=traits,
            notes=(*descent.notes, *_notes(traits)),
        )

    def _trait(self, trait: str, moved: Numbers) -> TraitShift:
        """moved: [n, L + 1, traits], by prompt."""
        vector, place = self.vectors[trait], list(self.vectors).index(trait)
        usable = [layer for layer in range(1, vector.layers + 1) if vector.usable(layer)]
        layer = self._quoted[trait]
        return TraitShift(
            trait=trait,
            layer=layer,
            prompts=len(moved),
            layers=tuple(self._layers(trait, place, moved, usable)),
            overlaps=self.mixing.overlaps(place, layer, moved[:, layer]),
        )

    def _layers(self, trait: str, place: int, moved: Numbers, usable: Sequence[int]) -> list[LayerShift]:
        weights = [self.mixing.own_weights(layer) for layer in usable]
        own = [
            moved[:, layer] @ (one[place] if one is not None else np.zeros(len(self.vectors)))
            for layer, one in zip(usable, weights, strict=True)
        ]
        along, alone = column_means(moved[:, usable, place]), column_means(np.stack(own, axis=1))
        spreads = self.base.by_trait[trait][:, usable, place].std(axis=0, ddof=1)
        asked = self.mixing.asked[usable, place]
        return [
            LayerShift(
                layer=layer,
                shift=along[i],
                own=None if weights[i] is None else alone[i],
                spread=float(spreads[i]),
                asked=float(asked[i]) if np.isfinite(asked[i]) else None,
            )
            for i, layer in enumerate(usable)
        ]


def quoted_layer(vector: TraitVector, layer: int | None) -> int:
    """The layer to quote: the one that is wanted, the vector file's, or else that near the usual depth.

    Raises ConfigError for one that cannot be read.
    """
    usable = [one for one in range(1, vector.layers + 1) if vector.usable(one)]
    if layer is not None and layer not in usable:
        raise ConfigError(f"{vector.trait}: layer {layer} cannot be read; layers are 1 to {vector.layers}")
    return layer or vector.layer or min(usable, key=lambda one: abs(one - DEPTH * vector.layers))


def check_prompts(prompts: Mapping[str, Conversations], vectors: TraitVectors) -> None:
    """Raises ConfigError for traits without a vector, and for too few prompts."""
    if not prompts:
        raise ConfigError("there is no trait to measure")
    vectors.require(prompts)
    for trait, asked in prompts.items():
        if len(asked) < FEWEST:
            raise ConfigError(
                f"{trait}: {len(asked)} prompts; a shift with an interval needs at least {FEWEST}"
            )


def _digest(prompts: Mapping[str, Conversations]) -> str:
    plain = {t: [[m.as_dict() for m in messages] for messages in asked] for t, asked in prompts.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _notes(traits: Mapping[str, TraitShift]) -> list[str]:
    few = [f"{name} ({one.prompts})" for name, one in traits.items() if one.prompts < FEW]
    notes = [f"few prompts, so the intervals say little: {', '.join(few)}"] if few else []
    for name, one in traits.items():
        if mixed := one.confused_with:
            notes.append(f"the shift of {name} cannot be told apart from that of {', '.join(mixed)}")
    return notes
