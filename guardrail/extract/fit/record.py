"""What a vector file says about a fit: every candidate with its numbers, the reason, and what to beware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guardrail.extract.fit.folds import OTHERS, Check, Stratum
from guardrail.extract.fit.readout import Task
from guardrail.extract.fit.rows import MINIMUM
from guardrail.extract.fit.selection import Choice, Tried
from guardrail.extract.fit.validation import CRITERION, HeldOut, reported
from guardrail.vectors.provenance import FitCandidate, FitCheck, FitSource, LabelledFit, TraitSource

EASY = 0.98
"""A criterion from which on the held-out prompts do not tell candidates apart."""
FEW = 100
"""Harmless prompts of one source; a rate of 1 % cannot be seen on fewer."""


def record(
    task: Task, checks: Sequence[Check], scored: Sequence[Stratum], choice: Choice, origin: Origin
) -> tuple[LabelledFit, TraitSource]:
    """The records of one trait, for the provenance."""
    errors = dict(zip(map(id, choice.tried), choice.errors, strict=True))
    ordered = [choice.chosen, *(one for one in choice.tried if one is not choice.chosen)]
    counts = {side: sum(len(s) for s in task.strata if s.positive is side) for side in (True, False)}
    fit = LabelledFit(
        data_sha256=origin.sha256,
        criterion=CRITERION,
        reason=choice.reason,
        checks=tuple(
            _check(check, scored, held_out)
            for check, held_out in zip(checks, choice.chosen.tested.checks, strict=True)
        ),
        candidates=tuple(_candidate(one, errors[id(one)]) for one in ordered),
        duplicates=origin.repeated,
        prompts=origin.prompts,
        warnings=tuple(_warnings(scored, choice)),
        positives=_positives(choice.chosen.tested.checks[-1]),
    )
    source = TraitSource(
        definition_sha256=origin.sha256,
        positive=counts[True],
        negative=counts[False],
        detection_auroc=_by_layer(choice, origin.layers),
    )
    return fit, source


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a fit comes from: digests of the prompts, and how many were `repeated` and left out.

    `layers`: those of the model.
    """

    sha256: str
    repeated: int
    prompts: tuple[str, ...]
    layers: tuple[int, ...]


def _positives(held_out: HeldOut) -> tuple[float, ...]:
    scores = np.sort(np.concatenate(held_out.positive)).tolist()
    return tuple(round(score, 3) for score in scores)


def _check(check: Check, scored: Sequence[Stratum], held_out: HeldOut) -> FitCheck:
    numbers = reported(held_out)
    positive = [stratum for stratum in scored if stratum.positive]
    negative = [stratum for stratum in scored if not stratum.positive]
    pairs = [*zip(positive, numbers.recalls, strict=True), *zip(negative, numbers.rates, strict=True)]
    return FitCheck(
        name=check.name,
        held_out=tuple(fold.name for fold in check.folds),
        auroc=numbers.auroc,
        recall=numbers.recall,
        sources=tuple(
            FitSource(source=stratum.source, label=stratum.positive, prompts=len(stratum), fired=fired)
            for stratum, fired in pairs
        ),
    )


def _candidate(tried: Tried, error: float | None) -> FitCandidate:
    one = tried.candidate
    return FitCandidate(
        places=one.places,
        normalised=one.normalised,
        method=one.method,
        penalty=one.penalty,
        value=round(tried.rank[0], 4),
        auroc=round(tried.tested.area, 4),
        error=None if error is None else round(error, 4),
    )


def _by_layer(choice: Choice, layers: Sequence[int]) -> tuple[float, ...]:
    """AUROC at layers 1 to L, at the chosen position; empty if not every layer was tried."""
    position = choice.chosen.candidate.places[-1][1]
    found: dict[int, float] = {}
    for one in choice.tried:
        (layer, own), *more = one.candidate.places
        if own == position and not more:
            found.setdefault(layer, round(one.tested.area, 4))
    return tuple(found[layer] for layer in layers) if found.keys() >= {*layers} else ()


def _one(source: str) -> str:
    """The only source, or what was put together to one because each part is too small to be held out."""
    return (
        f"sources of fewer than {MINIMUM} such prompts, which count as one"
        if source == OTHERS
        else "one source"
    )


def _warnings(scored: Sequence[Stratum], choice: Choice) -> list[str]:
    found: list[str] = []
    for side, what in ((True, "with the trait"), (False, "without the trait")):
        own = [stratum for stratum in scored if stratum.positive is side]
        if len(own) == 1:
            found.append(
                f"all prompts {what} come from {_one(own[0].source)}, "
                "so nothing here shows how the probe does on others"
            )
    small = [s.source or "(no source)" for s in scored if not s.positive and len(s) < FEW]
    if small:
        names = ", ".join(small)
        found.append(f"fewer than {FEW} harmless prompts, too few to measure a rate of 1 %: {names}")
    if choice.chosen.rank[0] >= EASY:
        found.append(
            "the held-out prompts are too easy to choose by: add harmless prompts that look like the trait, "
            "as a source of their own, and prompts with the trait in everyday wording"
        )
    return found
