"""What was measured of a model, kept in a file, so that an interrupted gate goes on where it stopped.

A measurement is kept for exactly these weights, this way of running them, and all that it depends on. A
checkpoint that differs in one number is another model, so its file says nothing of this one.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from guardrail.engines import Continuation
from guardrail.engines.transformers.configuration import configuration
from guardrail.engines.transformers.weights import digest
from guardrail.errors import ExtractionError
from guardrail.extract.subject import Subject
from guardrail.files.sqlite import Table, opened
from guardrail.statistics.intervals import Numbers
from guardrail.train.shift.projections import Rows, projected

MEASURED = Table("measured", {"key": "TEXT PRIMARY KEY", "value": "TEXT NOT NULL"}, "WITHOUT ROWID")


class Measured:
    """Measurements in a file. `kept`: how many an earlier run had made, of `asked`.

    Raises ExtractionError if the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = self.kept = 0
        self._made: set[str] = set()
        self._models: WeakKeyDictionary[Subject, str] = WeakKeyDictionary()

    def __call__(self, subject: Subject, recipe: Mapping[str, Any], measure: Callable[[], Any]) -> Any:
        """What `measure` returns, as JSON gives it back, or what it returned earlier."""
        key = self._key(subject, recipe)
        self.asked += 1
        if (found := self._run("SELECT value FROM measured WHERE key = ?", key)) is not None:
            self.kept += key not in self._made
            return json.loads(found)
        value = json.dumps(measure())
        self._made.add(key)
        self._run("INSERT OR REPLACE INTO measured VALUES (?, ?)", key, value)
        return json.loads(value)

    def projected(self, subject: Subject, name: str, rows: Rows, units: Numbers) -> Numbers:
        """As `guardrail.train.shift.projections.projected`."""
        recipe = {"rows": rows, "units": hashlib.sha256(units.tobytes()).hexdigest()}
        return np.array(self(subject, recipe, lambda: projected(subject, name, rows, units).tolist()))

    def replies(
        self, subject: Subject, recipe: Mapping[str, Any], reply: Callable[[], list[Continuation]]
    ) -> list[Continuation]:
        """Replies of a model."""
        found = self(subject, recipe, lambda: [(one.text, one.ids, one.ended) for one in reply()])
        return [Continuation(text, tuple(ids), ended) for text, ids, ended in found]

    def _key(self, subject: Subject, recipe: Mapping[str, Any]) -> str:
        if subject not in self._models:
            self._models[subject] = _identity(subject)
        text = json.dumps([self._models[subject], recipe], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _run(self, command: str, *values: str) -> str | None:
        try:
            with closing(opened(self.path, MEASURED)) as database:
                row = database.execute(command, values).fetchone()
        except (OSError, sqlite3.Error) as error:
            raise ExtractionError(f"{self.path}: cannot be used: {error}") from error
        return None if row is None else row[0]


def _identity(subject: Subject) -> str:
    """The model with all of its weights, unlike its fingerprint, and how it is run."""
    known = [asdict(subject.fingerprint), asdict(configuration(subject.local)), digest(subject.local.inner)]
    return json.dumps(known, sort_keys=True)
