"""Tests every layer's vector: steering, ablation and separation, one layer at a time, resumable.

Each measurement is an append-only file with one row per layer; the row of layer 0 is the model without a
vector. An interrupted run resumes at its current layer. Steering acts on the last prompt token and all later
ones, like the guard's; the refusal_direction code ablates earlier tokens too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from guardrail.errors import ConfigError, VectorError
from guardrail.extract.journal import Journal, Report, check_begun, rows_in, silent
from guardrail.extract.layers.effects import (
    SweepSettings,
    Trial,
    ablating,
    adding,
    divergence,
    judged,
    next_token,
)
from guardrail.extract.layers.measurements import Candidate, Separation, Sweep, log_odds, merged
from guardrail.extract.prompts import RolloutPrompt, trait_prompts
from guardrail.extract.subject import Subject
from guardrail.extract.workload import Workload
from guardrail.plugins.protocols import Judge
from guardrail.statistics.metrics import auroc
from guardrail.statistics.nulls import shuffled_labels
from guardrail.traits import TraitDefinition
from guardrail.types import Array, Glimpse, Message, normed
from guardrail.vectors.values import TraitVector

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """A definition's evaluation questions: alone, and with every system prompt of either side."""

    plain: tuple[RolloutPrompt, ...]
    positive: tuple[RolloutPrompt, ...]
    negative: tuple[RolloutPrompt, ...]

    @property
    def asking(self) -> tuple[RolloutPrompt, ...]:
        """Every question once, cycling through the positive instructions."""
        turns = 1 + max((prompt.instruction for prompt in self.positive), default=0)
        once = [p for p in self.positive if p.instruction == p.question % turns]
        return tuple(sorted(once, key=lambda p: p.question))

    @classmethod
    def of(cls, definition: TraitDefinition) -> Questions:
        """The evaluation questions of a definition, which no vector was made from."""
        prompts = trait_prompts(definition, held_out=True)
        return cls(
            plain=tuple(p for p in prompts if p.kind == "neutral"),
            positive=tuple(p for p in prompts if p.kind == "positive"),
            negative=tuple(p for p in prompts if p.kind == "negative"),
        )


def sweep_steering(trial: Trial, vector: TraitVector, folder: Path, report: Report = silent) -> Sweep:
    """Measure trait and coherence of replies to plain questions with each layer's vector added."""
    plain = Questions.of(trial.definition).plain

    def row(layer: int) -> Row:
        added = [adding(vector, layer, trial.settings.coefficient)] if layer else []
        found = judged(trial, plain, added)
        return {
            "layer": layer,
            "trait": found.trait,
            "trait_interval": found.interval,
            "coherence": found.coherence,
            "refused": found.refused,
        }

    rows = _rows("steering", trial, vector, folder, row, report)
    return _sweep(trial, vector, len(plain), [_steered(row) for row in rows])


def sweep_ablation(trial: Trial, vector: TraitVector, folder: Path, report: Report = silent) -> Sweep:
    """With directions ablated, measure the trait if prompts ask for it, and KL on plain questions."""
    questions = Questions.of(trial.definition)
    before = next_token(trial.subject, questions.plain)

    def row(layer: int) -> Row:
        ablated = [ablating(vector, layer)] if layer else []
        found = judged(trial, questions.asking, ablated)
        after = next_token(trial.subject, questions.plain, ablated)
        return {
            "layer": layer,
            "trait": found.trait,
            "refused": found.refused,
            "kl": divergence(before, after),
        }

    rows = _rows("ablation", trial, vector, folder, row, report)
    return _sweep(trial, vector, len(questions.asking), [_ablated(row) for row in rows])


def sweep_separation(
    subject: Subject,
    vector: TraitVector,
    definition: TraitDefinition,
    layers: tuple[int, ...] | None = None,
) -> Sweep:
    """Measure AUROC and d' of the probe, asking against forbidding prompts. Needs no judge."""
    asked = Questions.of(definition)
    positive, negative = ([prompt.messages for prompt in side] for side in (asked.positive, asked.negative))
    return separation(subject, vector, positive, negative, layers)


def separation(
    subject: Subject,
    vector: TraitVector,
    positive: Sequence[Sequence[Message]],
    negative: Sequence[Sequence[Message]],
    layers: tuple[int, ...] | None = None,
) -> Sweep:
    """Measure AUROC and d' of the probe between any two sets of conversations."""
    check_fits(subject, vector)
    shown, bare = (_projections(subject, vector, side) for side in (positive, negative))
    tried = list(usable(vector, layers))
    candidates = tuple(_separated(layer, shown, bare) for layer in tried)
    null = shuffled_labels(max(one.auroc or 0.0 for one in candidates), shown[:, tried], bare[:, tried])
    return Sweep(
        trait=vector.trait,
        layers=vector.layers,
        candidates=candidates,
        separation=Separation(asking=len(shown), forbidding=len(bare), null=null),
    )


def measure(selector: str, trial: Trial, vector: TraitVector, folder: Path, report: Report = silent) -> Sweep:
    """Measure what a selector of `layers_select` needs, and separation too, because it is cheap.

    Raises ExtractionError if the folder contains another sweep; after a JudgeError finished layers are kept.
    """
    apart = sweep_separation(trial.subject, vector, trial.definition, trial.settings.layers)
    return merged(apart, *(one(trial, vector, folder, report) for one in MEASUREMENTS[selector]))


MEASUREMENTS: Mapping[str, tuple[Callable[[Trial, TraitVector, Path, Report], Sweep], ...]] = {
    "separation": (),
    "steering": (sweep_steering,),
    "refusal": (sweep_steering, sweep_ablation),
}
"""The measurement for each selector, in addition to separation."""
FILES: Mapping[str, tuple[str, ...]] = {
    "separation": (),
    "steering": ("steering",),
    "refusal": ("steering", "ablation"),
}
"""The names of their files."""


def workload(selector: str, trial: Trial, vector: TraitVector, folder: Path) -> Workload:
    """What remains to be done for a selector."""
    questions, settings = len(trial.definition.evaluation), trial.settings
    rows = sum(
        1 + len(usable(vector, settings.layers)) - rows_in(folder / f"{name}.jsonl")
        for name in FILES[selector]
    )
    replies = rows * questions * settings.samples
    return Workload(
        replies=replies,
        max_new_tokens=settings.max_new_tokens,
        judged=2 * replies,
        batch=trial.subject.rows,
    )


def usable(vector: TraitVector, wanted: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """The candidate layers. Raises ConfigError if one that is wanted cannot be used."""
    found = tuple(layer for layer in range(1, vector.layers + 1) if vector.usable(layer))
    if missing := [layer for layer in wanted or () if layer not in found]:
        raise ConfigError(
            f"{vector.trait}: layer {missing[0]} cannot be tried; layers are 1 to {vector.layers}"
        )
    return wanted or found


def check_fits(subject: Subject | Glimpse, vector: TraitVector) -> None:
    """Raises VectorError if the vectors are for a model of another size."""
    if (vector.layers, vector.d_model) != (subject.layers, subject.d_model):
        raise VectorError(
            f"{vector.trait}: vectors of {vector.layers} layers x {vector.d_model} do not fit a model of "
            f"{subject.layers} x {subject.d_model}"
        )


def _rows(
    name: str, trial: Trial, vector: TraitVector, folder: Path, row: Callable[[int], Row], report: Report
) -> list[Row]:
    check_fits(trial.subject, vector)
    layers = (0, *usable(vector, trial.settings.layers))
    journal = Journal(folder / f"{name}.jsonl", _recipe(name, trial, vector), len(layers), 1)
    stage = f"{vector.trait}: {name}"
    return list(journal.complete(stage, lambda numbers: [row(layers[i]) for i in numbers], report))


def check_folder(
    selector: str,
    folder: Path,
    vector: TraitVector,
    definition: TraitDefinition,
    judge: Judge,
    settings: SweepSettings,
) -> None:
    """Raises ExtractionError if a folder was begun with another recipe. Needs no model."""
    for name in FILES[selector]:
        check_begun(folder / f"{name}.jsonl", _known(name, vector, definition, judge, settings))


def _recipe(name: str, trial: Trial, vector: TraitVector) -> Row:
    """Everything that a row depends on."""
    model = {f"model {key}": value for key, value in asdict(trial.subject.fingerprint).items()}
    return {**_known(name, vector, trial.definition, trial.judge, trial.settings), **model}


def _digest(vector: TraitVector) -> str:
    parts = (vector.steering, vector.probe, vector.offset)
    digest = hashlib.sha256(b"".join(part.tobytes() for part in parts))
    if vector.position != "last" or vector.normalised:
        digest.update(f"{vector.position} {vector.normalised}".encode())
    return digest.hexdigest()


def _known(
    name: str, vector: TraitVector, definition: TraitDefinition, judge: Judge, settings: SweepSettings
) -> Row:
    """The part of the recipe that is known before a model is loaded."""
    return {
        "measurement": name,
        "trait": vector.trait,
        "vector": _digest(vector),
        "definition": definition.sha256,
        "judge": judge.name,
        **asdict(settings),
    }


def _sweep(trial: Trial, vector: TraitVector, questions: int, found: Sequence[Candidate]) -> Sweep:
    return Sweep(
        trait=vector.trait,
        layers=vector.layers,
        candidates=tuple(found[1:]),
        coefficient=trial.settings.coefficient,
        baseline=found[0],
        judge=trial.judge.name,
        replies=questions * trial.settings.samples,
    )


def _steered(row: Row) -> Candidate:
    trait, span = row["trait"], row.get("trait_interval")  # older journals have none
    return Candidate(
        layer=row["layer"],
        trait=trait,
        trait_interval=(span[0], span[1]) if span else None,
        coherence=row["coherence"],
        induce=None if trait is None else log_odds(trait),
    )


def _ablated(row: Row) -> Candidate:
    trait = row["trait"]
    return Candidate(layer=row["layer"], ablation=None if trait is None else log_odds(trait), kl=row["kl"])


def _projections(subject: Subject, vector: TraitVector, prompts: Sequence[Sequence[Message]]) -> Array:
    """[n, L + 1]: of the rows of the probe, each at its layer."""
    states = subject.read(prompts, [vector.position])[vector.position]
    read = normed(states) if vector.normalised else states
    return np.einsum("nld,ld->nl", read, vector.probe) + vector.offset


def _separated(layer: int, positive: Array, negative: Array) -> Candidate:
    high, low = positive[:, layer].astype(np.float64), negative[:, layer].astype(np.float64)
    spread = np.sqrt((high.var() + low.var()) / 2)
    gap = float(high.mean() - low.mean())
    found = auroc(high, low)
    return Candidate(
        layer=layer,
        auroc=found.value,
        auroc_interval=(found.low, found.high),
        d_prime=gap / float(spread) if spread else 0.0,
    )
