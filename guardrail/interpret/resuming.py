"""What long runs keep in a folder, row by row, so that they go on from there if they are interrupted."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guardrail.extract.journal import Journal, Recipe, Report, Row, locked, silent
from guardrail.extract.subject import Subject
from guardrail.statistics.intervals import Numbers


@dataclass(frozen=True, slots=True)
class Work:
    """Where rows are kept (nowhere without a folder), and who is told how far a run is."""

    folder: Path | None = None
    report: Report = silent

    def rows(
        self,
        name: str,
        stage: str,
        recipe: Recipe,
        total: int,
        make: Callable[[Sequence[int]], Sequence[Row]],
        together: int = 1,
    ) -> list[Row]:
        """Rows 0 to `total`, of which `make` gets the numbers, `together` at a time.

        Those in the folder are not made again. Raises ExtractionError if the file was begun with another
        recipe, or if another process uses the folder.
        """
        if self.folder is None:
            return self._made(stage, total, make, together)
        with locked(self.folder):
            journal = Journal(self.folder / f"{name}.jsonl", recipe, total, together)
            return list(journal.complete(stage, make, self.report))

    def _made(
        self, stage: str, total: int, make: Callable[[Sequence[int]], Sequence[Row]], together: int
    ) -> list[Row]:
        found: list[Row] = []
        while len(found) < total:
            found += make(range(len(found), min(len(found) + together, total)))
            self.report(stage, len(found), total)
        return found


NOWHERE = Work()
"""Nothing is kept, nobody is told."""


def recipe_of(subject: Subject, **parts: object) -> dict[str, object]:
    """What a resumed run has to agree with: the model, and these parts."""
    dtype = str(subject.local.inner.dtype).removeprefix("torch.")
    return {"model": subject.fingerprint.weights, "dtype": dtype, **parts}


def digest(value: object) -> str:
    """A short name of values that JSON can hold."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def packed(values: Numbers) -> str:
    """Numbers as text, exactly."""
    return b64encode(np.ascontiguousarray(values, np.float64).tobytes()).decode()


def unpacked(text: str, *shape: int) -> Numbers:
    """The numbers of a text."""
    return np.frombuffer(b64decode(text), np.float64).reshape(shape)
