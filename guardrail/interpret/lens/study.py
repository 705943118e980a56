"""Asks one model the items of one task in every condition, and scores what a lens shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from guardrail.extract.journal import Report, Row, silent
from guardrail.extract.subject import Subject
from guardrail.interpret.forms import Form, Ids, notes
from guardrail.interpret.lens import consistency as s
from guardrail.interpret.lens.prompts import CONDITIONS, Asked, Condition, ask
from guardrail.interpret.lens.reading import Reading, Translate, as_it_is, last_states, read
from guardrail.interpret.lens.results import Contrast, Gold, Kind, LensResult, Measured, Pairing, Score
from guardrail.interpret.lens.tasks import Item
from guardrail.interpret.lens.tuned import TunedLens
from guardrail.interpret.lens.unembedding import Unembedding
from guardrail.interpret.resuming import Work, digest, recipe_of
from guardrail.statistics.intervals import Numbers, column_means, mean, rate

Hits: TypeAlias = dict[tuple[Condition, Gold], NDArray[np.bool_]]
TOGETHER = 64
"""Prompts that are read before they are kept and reported."""
GOLDS: dict[Pairing, tuple[Gold, Gold]] = {
    "paper": ("dataset", "own"),
    "dataset": ("dataset", "dataset"),
    "own": ("own", "own"),
}


@dataclass
class LensStudy:
    """One model under the logit lens, and under a tuned one if there is one.

    An interrupted run in `work` is resumed. Raises ModelError for a model that no lens looks through.
    """

    subject: Subject
    name: str
    form: Form = "text"
    tuned: TunedLens | None = None
    report: Report = silent
    work: Path | None = None
    unembedding: Unembedding = field(init=False)

    def __post_init__(self) -> None:
        self.unembedding = Unembedding(self.subject.local)
        if self.tuned is not None:
            self.tuned.check(self.subject.fingerprint)

    def run(self, task: str, items: Sequence[Item]) -> list[LensResult]:
        """One result for each lens.

        Raises ConfigError if fewer than two items can be asked, and ExtractionError if `work` was begun with
        other items or another lens.
        """
        asked = ask(self.subject, items, self.form)
        rows: dict[Condition, list[Row]] = {c: self._rows(task, c, asked.rows[c]) for c in CONDITIONS}
        return [self._result(lens, task, asked, _readings(lens, rows)) for lens in self._lenses]

    @property
    def _lenses(self) -> dict[Kind, Translate]:
        found: dict[Kind, Translate] = {"logit": as_it_is}
        return found if self.tuned is None else {**found, "tuned": self.tuned.translate}

    def _rows(self, task: str, condition: Condition, prompts: Sequence[Ids]) -> list[Row]:
        """What each lens shows of each prompt."""
        tuned = self.tuned.sha256 if self.tuned else ""
        recipe = recipe_of(self.subject, prompts=digest(list(prompts)), tuned=tuned)
        # models side by side share the folder
        name = f"{task}-{condition}-{digest([recipe['model'], tuned])}"
        stage = f"{self.name}: {task}, {condition} persona"

        def make(numbers: Sequence[int]) -> list[Row]:
            states = last_states(self.subject, [prompts[i] for i in numbers])
            found = {lens: read(states, self.unembedding, t).rows for lens, t in self._lenses.items()}
            return [{lens: rows[i] for lens, rows in found.items()} for i in range(len(numbers))]

        return Work(self.work, self.report).rows(name, stage, recipe, len(prompts), make, TOGETHER)

    def _result(self, lens: Kind, task: str, asked: Asked, readings: dict[Condition, Reading]) -> LensResult:
        hits = _every_hit(asked, readings)
        alone = np.array([item.alone for item in asked.items])
        final = {c: readings[c].tokens[:, -1] for c in CONDITIONS}
        return LensResult(
            model=self.name,
            lens=lens,
            task=task,
            layers=self.subject.layers,
            items=len(asked.items),
            needing=int((~alone).sum()),
            several=asked.several,
            rejected=asked.rejected,
            accuracy={c: rate(hits[c, "dataset"][:, -1]) for c in CONDITIONS},
            changed=rate(final["with"] != final["without"]),
            measured=tuple(_measured(c, g, hit, readings[c]) for (c, g), hit in hits.items()),
            contrasts=_contrasts(hits, readings, alone),
            divergence=tuple(readings["with"].divergences.mean(0).tolist()),
            form=self.form,
            notes=tuple(notes(self.subject, self.form)),
        )


def _readings(lens: Kind, rows: Mapping[Condition, Sequence[Row]]) -> dict[Condition, Reading]:
    return {condition: Reading.of([row[lens] for row in found]) for condition, found in rows.items()}


def _every_hit(asked: Asked, readings: dict[Condition, Reading]) -> Hits:
    found: Hits = {}
    for condition, reading in readings.items():
        found[condition, "dataset"] = reading.hits(asked.golds)
        found[condition, "own"] = reading.hits(reading.own)
    return found


def _measured(condition: Condition, gold: Gold, hits: NDArray[np.bool_], reading: Reading) -> Measured:
    return Measured(
        condition=condition,
        gold=gold,
        scores=tuple(score(hits, reading.probabilities, share) for share in s.SHARES),
        by_layer=tuple(column_means(hits)),
    )


def score(hits: NDArray[np.bool_], probabilities: Numbers, share: float) -> Score:
    """S over the last `share` of layers, of hits and probabilities [n, L]."""
    layers = hits.shape[1]
    found = s.consistency(hits, probabilities, share)
    rising = s.consistency(hits, probabilities, share, weighting="ascending")
    columns = (
        found,
        _divided(found, s.bound(layers, share)),
        s.consistency(hits, probabilities, share, final=False),
        _divided(rising, s.bound(layers, share, "ascending")),
    )
    plain, normalised, without_final, ascending = column_means(np.stack(columns, 1))
    depths = s.first_hits(hits, share)
    return Score(
        share=share,
        bound=s.bound(layers, share),
        mean=plain,
        median=float(np.median(found)),
        normalised=normalised,
        without_final=without_final,
        ascending=ascending,
        hit_rate=rate(np.any(hits & s.kept(layers, share), axis=1).tolist()),
        first_hit=mean(depths) if len(depths) else None,
    )


def _divided(values: Numbers, by: float) -> Numbers:
    """A model of fewer than five layers has none among the last fifth: its S is 0 of at most 0."""
    return values / by if by else values


def _contrasts(
    hits: Hits,
    readings: dict[Condition, Reading],
    alone: NDArray[np.bool_],
) -> tuple[Contrast, ...]:
    bands = {key: s.bands(hit, readings[key[0]].probabilities) for key, hit in hits.items()}
    others: tuple[Condition, ...] = ("without", "other")
    return tuple(
        contrast(bands["with", first], bands[against, second], alone, against, pairing)
        for against in others
        for pairing, (first, second) in GOLDS.items()
    )


def contrast(
    first: Numbers, second: Numbers, alone: NDArray[np.bool_], against: Condition, pairing: Pairing
) -> Contrast:
    """Paired differences of bands [n, shares]. `alone`: which items need no persona."""
    band = first - second
    summed = band.cumsum(1)
    return Contrast(
        against=against,
        pairing=pairing,
        by_share=tuple(column_means(summed)),
        by_band=tuple(column_means(band)),
        alone=tuple(column_means(summed[alone])) if alone.sum() > 1 else None,
    )
