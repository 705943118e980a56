"""Screens data sets row by row: reads a chunk, measures it, stores it. Resumable, in constant memory."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from guardrail.calibrate.fit import check_vectors
from guardrail.errors import ConfigError
from guardrail.extract.journal import Recipe, Report, locked, silent
from guardrail.extract.subject import Subject
from guardrail.files.json_lines import refuse
from guardrail.train.screening import data as chunks
from guardrail.train.screening.data import Chunk, Data
from guardrail.train.screening.directions import Direction, directions
from guardrail.train.screening.encoding import Encoder
from guardrail.train.screening.files import open_data
from guardrail.train.screening.judging import SampleJudge
from guardrail.train.screening.meter import Form, Meter
from guardrail.train.screening.projecting import Projector
from guardrail.train.screening.reading import Good, Reader
from guardrail.train.screening.references import References
from guardrail.train.screening.results import Screened
from guardrail.train.screening.store import Cost, Row, Store
from guardrail.train.screening.subset import chosen
from guardrail.train.screening.survey import problems
from guardrail.vectors.values import TraitVectors

REPLIES = "replies.sqlite"
STAGE = "screening"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreeningSettings:
    """How samples are measured.

    `form`: `exact`, or the cheap `last-prompt`. `subset`: measure only so many rows, drawn at random by their
    content and `seed`: enough for the mean of a data set. `max_new_tokens`: of the base's own replies.
    `longest`: the most tokens of a sample, None for what the model takes. `source`: the key that says where a
    row comes from. `strict`: a row that cannot be screened is an error, found before anything is measured.
    """

    form: Form = "exact"
    subset: int | None = None
    seed: int = 0
    max_new_tokens: int = 256
    longest: int | None = None
    source: str | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or (self.subset is not None and self.subset < 2):
            raise ConfigError("the base's replies take 1 token or more, a subset 2 rows or more")


class Screener:
    """Screens data with one model and its trait vectors; work is kept in `folder`.

    `layers`: one for all traits or by trait, where they are not those of the vector file. `judge`: scores
    every sample as well. Raises VectorError if the vectors are of another model, ConfigError for unknown
    traits and layers.
    """

    def __init__(
        self,
        subject: Subject,
        vectors: TraitVectors,
        *,
        folder: str | Path,
        traits: Sequence[str] | None = None,
        layers: Mapping[str, int] | int | None = None,
        settings: ScreeningSettings | None = None,
        judge: SampleJudge | None = None,
        allow_model_mismatch: bool = False,
    ) -> None:
        check_vectors(vectors, subject.fingerprint, allow_model_mismatch)
        self.subject, self.vectors, self.folder = subject, vectors, Path(folder)
        self.settings, self.judge = settings or ScreeningSettings(), judge
        self.directions: tuple[Direction, ...] = directions(vectors, traits, layers)

    def screen(self, data: str | Path | Data, report: Report = silent) -> Screened:
        """Measure every row that was not measured yet. Raises ConfigError for data that cannot be read.

        With `strict`, ConfigError names every row that cannot be screened.
        """
        opened = open_data(data) if isinstance(data, str | Path) else data
        if self.settings.strict:
            refuse(problems(opened, self.reader()))
        with locked(self.folder):
            store = self.store(opened)
            if not store.complete:
                self._complete(opened, store, report)
        return Screened(
            data=opened,
            store=store,
            directions=self.directions,
            form=self.settings.form,
            vectors_sha256=self.vectors.sha256,
            subset=self.settings.subset,
            judge=self.judge.judge.name if self.judge else None,
        )

    def store(self, data: Data) -> Store:
        """What is known of a data set so far."""
        recipe = self._recipe(data.sha256())
        return Store(self.folder / f"{_name(recipe)}.sqlite", recipe, len(self.directions))

    def _recipe(self, sha256: str) -> Recipe:
        wanted = asdict(replace(self.settings, strict=False))
        del wanted["strict"]
        return {
            **{f"model {name}": value for name, value in asdict(self.subject.fingerprint).items()},
            "vectors": self.vectors.sha256,
            "layers": {one.trait: one.layer for one in self.directions},
            **wanted,
            "judge": self.judge.recipe if self.judge else None,
            "chunk": chunks.CHUNK,
            "data": sha256,
        }

    def _complete(self, data: Data, store: Store, report: Report) -> None:
        work, wanted = _Work(self, store), None
        if self.settings.subset is not None:
            wanted = chosen(data, self.settings.subset, self.settings.seed, self.settings.source)
        done, seen, total = store.done, 0, data.rows()
        if not total:
            raise ConfigError(f"{data.path}: there are no rows")
        stage = f"{STAGE} {data.path.name}"
        report(stage, 0, total)
        for chunk in data.chunks():
            seen += len(chunk.numbers)
            if chunk.numbers[-1] > done:
                work.add(chunk, wanted)
            else:
                work.reader.pass_over(chunk)
            report(stage, seen, total)
        store.finish()

    def meter(self) -> Meter:
        """Measures samples. The base's own replies are shared by all data that is screened in this folder."""
        own = References(self.subject, self.folder / REPLIES, self.settings.max_new_tokens)
        return Meter(Projector(self.subject, self.directions), own if self.settings.form == "exact" else None)

    def reader(self) -> Reader:
        """Reads the rows of one data set."""
        room = self.settings.max_new_tokens if self.settings.form == "exact" else 0
        return Reader(Encoder(self.subject, self.settings.longest, room), self.settings.source)


def _name(recipe: Recipe) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


class _Work:
    """Measures chunk after chunk of one data set."""

    def __init__(self, screener: Screener, store: Store) -> None:
        self.reader, self._store, self._judge = screener.reader(), store, screener.judge
        self._meter = screener.meter()
        self._traits = [one.trait for one in screener.directions]
        self._spent = Cost()

    def add(self, chunk: Chunk, wanted: frozenset[int] | None) -> None:
        """Measure the rows of a chunk and store them."""
        begun = time.perf_counter()
        looked = self.reader.read(chunk, self._store, wanted)
        rows = [*self._measured(looked.good), *looked.bad]
        spent = self._counted()
        cost = replace(spent - self._spent, seconds=time.perf_counter() - begun)
        self._store.add(rows, chunk.numbers[-1], cost)
        self._spent = spent

    def _measured(self, good: Sequence[Good]) -> list[Row]:
        found = self._meter([one.encoded for one in good])
        scores = self._judge.scores([one.sample for one in good], self._traits) if self._judge else []
        return [
            Row(
                number=one.number,
                key=one.key,
                source=one.sample.source,
                found=projections,
                scores=scores[i] if scores else (),
            )
            for i, (one, projections) in enumerate(zip(good, found, strict=True))
        ]

    def _counted(self) -> Cost:
        own = self._meter.references
        return Cost(
            read_tokens=self._meter.projector.tokens,
            replies=own.generated if own else 0,
            reply_tokens=own.tokens if own else 0,
        )
