"""What is known of every row, in an SQLite file: memory does not grow, and a kill loses one chunk at most.

A chunk of rows is one transaction. Columns `reply<i>`, `last<i>`, `base<i>` are the projections on direction
i, `judge<i>` the judge's score of its trait; a row with a problem has only that.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from guardrail.errors import ExtractionError
from guardrail.extract.journal import Recipe, check_recipe
from guardrail.files.sqlite import Table, opened, transaction
from guardrail.statistics.intervals import Numbers
from guardrail.train.screening.meter import Form, Projections

BLOCK = 8192
"""Rows that a look through the file holds at a time."""
FACTS = Table("facts", {"name": "TEXT PRIMARY KEY", "value": "TEXT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of data: what is wrong with it, or its projections. `scores`: the judge's, by trait."""

    number: int
    key: bytes | None = None
    source: str = ""
    kind: str | None = None
    problem: str | None = None
    found: Projections | None = field(default=None, repr=False)
    scores: Sequence[float | None] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A row as it was stored: one number per trait in each list, None where there is none."""

    number: int
    source: str
    kind: str | None
    problem: str | None
    reply: Sequence[float]
    last: Sequence[float]
    base: Sequence[float]
    judge: Sequence[float | None]

    def differences(self, form: Form) -> list[float]:
        """The projection difference of each trait."""
        others = self.base if form == "exact" else self.last
        return [reply - other for reply, other in zip(self.reply, others, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What was spent: time, tokens read, and the base's own replies that were generated."""

    seconds: float = 0.0
    read_tokens: int = 0
    replies: int = 0
    reply_tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        mine, others = asdict(self), asdict(other)
        return Cost(**{name: mine[name] + others[name] for name in mine})

    def __sub__(self, other: Cost) -> Cost:
        mine, others = asdict(self), asdict(other)
        return Cost(**{name: mine[name] - others[name] for name in mine})


class Store:
    """The rows of one data set. `traits`: how many directions. Raises ExtractionError for another recipe."""

    def __init__(self, path: Path, recipe: Recipe, traits: int) -> None:
        self.path, self.traits = path, traits
        numbers = [f"{name}{i}" for name in ("reply", "last", "base", "judge") for i in range(traits)]
        self._table = Table(
            "rows",
            {
                "number": "INTEGER PRIMARY KEY",
                "key": "BLOB",
                **dict.fromkeys(("source", "kind", "problem"), "TEXT"),
                **dict.fromkeys(numbers, "REAL"),
            },
            indexes={"keys": "key"},
        )
        self._check(recipe)

    def _check(self, recipe: Recipe) -> None:
        with self.open() as database:
            found = self._fact(database, "recipe")
            if found is not None:
                check_recipe(self.path, found, recipe)
            else:
                self._put(database, "recipe", recipe)

    @contextmanager
    def open(self) -> Generator[sqlite3.Connection]:
        """A connection. Raises ExtractionError if the file cannot be used."""
        try:
            with closing(opened(self.path, self._table)) as database:
                FACTS.create(database)
                yield database
        except (OSError, sqlite3.Error) as error:
            raise ExtractionError(f"{self.path}: cannot be used: {error}") from error

    def _fact(self, database: sqlite3.Connection, name: str) -> Any:
        found = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def _put(self, database: sqlite3.Connection, name: str, value: object) -> None:
        database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    @property
    def done(self) -> int:
        """The last row of the data that was looked at."""
        with self.open() as database:
            return self._fact(database, "done") or 0

    @property
    def complete(self) -> bool:
        """Whether all rows were looked at."""
        with self.open() as database:
            return bool(self._fact(database, "complete"))

    @property
    def cost(self) -> Cost:
        """What was spent on these rows, by all runs together."""
        with self.open() as database:
            return Cost(**(self._fact(database, "cost") or {}))

    def finish(self) -> None:
        """All rows were looked at."""
        with self.open() as database:
            self._put(database, "complete", True)

    def known(self, keys: Sequence[bytes]) -> Mapping[bytes, int]:
        """The number of the row that has each key, of those that are stored."""
        with self.open() as database:
            found = {
                key: database.execute("SELECT number FROM rows WHERE key = ?", (key,)).fetchone()
                for key in keys
            }
        return {key: row[0] for key, row in found.items() if row}

    def add(self, rows: Sequence[Row], done: int, cost: Cost) -> None:
        """Store a chunk whose last row of the data is `done`."""
        marks = ", ".join("?" * len(self._table.columns))
        with self.open() as database, transaction(database):
            database.executemany(f"INSERT INTO rows VALUES ({marks})", map(self._values, rows))
            self._put(database, "done", done)
            self._put(database, "cost", asdict(Cost(**(self._fact(database, "cost") or {})) + cost))

    def _values(self, row: Row) -> tuple[Any, ...]:
        found, empty = row.found, [None] * self.traits
        parts = (
            found.reply.tolist() if found else empty,
            found.last.tolist() if found else empty,
            found.base.tolist() if found and found.base is not None else empty,
            list(row.scores) or empty,
        )
        return (
            row.number,
            row.key,
            row.source,
            row.kind,
            row.problem,
            *(one for part in parts for one in part),
        )

    def between(self, first: int, last: int) -> list[Stored]:
        """The rows with these numbers, in order."""
        query = "SELECT * FROM rows WHERE number BETWEEN ? AND ? ORDER BY number"
        return [self._stored(row) for row in self.rows(query, first, last)]

    def _stored(self, row: tuple[Any, ...]) -> Stored:
        number, _, source, kind, problem, *values = row
        parts = [values[i : i + self.traits] for i in range(0, len(values), self.traits or 1)]
        reply, last, base, judge = parts or ([], [], [], [])
        return Stored(
            number=number,
            source=source or "",
            kind=kind,
            problem=problem,
            reply=reply,
            last=last,
            base=base,
            judge=judge,
        )

    def columns(self, *asked: str) -> Iterator[Numbers]:
        """[rows, asked] float64 of the measured rows, in their order, in blocks. NaN where there is none.

        `asked`: expressions over columns, such as `reply0 - base0`.
        """
        query = f"SELECT {', '.join(asked)} FROM rows WHERE problem IS NULL ORDER BY number"
        with self.open() as database:
            cursor = database.execute(query)
            while block := cursor.fetchmany(BLOCK):
                yield np.array(block, dtype=np.float64)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The answer to a query that has a short one."""
        with self.open() as database:
            return database.execute(query, values).fetchall()

    def each(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """The rows of an answer that may be long, one at a time."""
        with self.open() as database:
            yield from database.execute(query, values)

    def problems(self) -> Iterator[tuple[int, str, str]]:
        """(number, kind, reason) of the rows that were set aside, in their order."""
        yield from self.each(
            "SELECT number, kind, problem FROM rows WHERE problem IS NOT NULL ORDER BY number"
        )
