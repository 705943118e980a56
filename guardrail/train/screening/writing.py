"""The files that a screening writes: scores, what was set aside, and the rows that were kept and rejected.

The data is read once more, chunk by chunk. Files are complete or not there: each is renamed when it is done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from guardrail.errors import ConfigError
from guardrail.train.screening.data import Chunk, Writer
from guardrail.train.screening.results import Screened
from guardrail.train.screening.store import Stored
from guardrail.train.screening.thresholds import Thresholds

SCORES, ASIDE = "scores.jsonl", "set-aside.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The files, by what is in them, and how many rows were kept and rejected."""

    files: Mapping[str, Path]
    kept: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the thresholds say of a row: its weight, and the traits that reject it."""

    weight: float
    above: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """`kept`, or `rejected` if any trait rejects the row."""
        return "rejected" if self.above else "kept"


def write(found: Screened, folder: Path, limits: Thresholds | None = None) -> Written:
    """Write the files of one data set. Without thresholds, or for a subset of rows, none is kept or rejected.

    A row's weight is the lowest of its traits': 1 up to the threshold, and above it the part of the clean
    tail that is as high. Raises ConfigError for thresholds that do not fit, or a folder that cannot be used.
    """
    if limits is not None:
        limits.check(found)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _Files(found, folder, None if found.subset else limits).write()
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error


@dataclass(slots=True)
class _Files:
    found: Screened
    folder: Path
    limits: Thresholds | None
    kept: int = field(default=0)
    rejected: int = field(default=0)

    def write(self) -> Written:
        data = self.found.data
        names = {"scores": SCORES, "aside": ASIDE}
        if self.limits:
            names |= {name: f"{name}{data.suffix}" for name in ("kept", "rejected")}
        parts = {name: self.folder / f"{file}.part" for name, file in names.items()}
        with (
            parts["scores"].open("w", encoding="utf-8") as scores,
            parts["aside"].open("w", encoding="utf-8") as aside,
        ):
            writers = {name: data.writer(parts[name]) for name in ("kept", "rejected") if name in parts}
            for chunk in data.chunks():
                self._chunk(chunk, scores, aside, writers)
            for writer in writers.values():
                writer.close()
        for name, file in names.items():
            parts[name].replace(self.folder / file)
        return Written(
            files={name: self.folder / file for name, file in names.items()},
            kept=self.kept,
            rejected=self.rejected,
        )

    def _chunk(self, chunk: Chunk, scores: Any, aside: Any, writers: Mapping[str, Writer]) -> None:
        rows = self.found.store.between(chunk.numbers[0], chunk.numbers[-1])
        rulings = self._rulings([row for row in rows if row.problem is None])
        places = {number: place for place, number in enumerate(chunk.numbers)}
        for row in rows:
            if row.problem is None:
                scores.write(_dumped(self._said(row, rulings.get(row.number))))
            else:
                said = {"row": row.number, "kind": row.kind, "reason": row.problem}
                aside.write(_dumped(said | {"data": chunk.shown(places[row.number])}))
        self._sort(chunk, {number: one.verdict for number, one in rulings.items()}, writers)

    def _sort(self, chunk: Chunk, verdicts: Mapping[int, str], writers: Mapping[str, Writer]) -> None:
        """Each row goes to the writer of its verdict, and is counted."""
        for name, writer in writers.items():
            writer.write(chunk, [verdicts.get(number) == name for number in chunk.numbers])
        self.rejected += sum(one == "rejected" for one in verdicts.values())
        self.kept += sum(one == "kept" for one in verdicts.values())

    def _rulings(self, rows: Sequence[Stored]) -> Mapping[int, Ruling]:
        """By row number; empty without thresholds."""
        if self.limits is None or not rows:
            return {}
        traits = self.found.traits
        differences = np.array([row.differences(self.found.form) for row in rows], dtype=np.float64)
        judged = np.array([row.judge for row in rows], dtype=np.float64)
        weights = self.limits.weights(traits, differences, judged)
        above = self.limits.beyond(traits, differences, judged)
        return {
            row.number: Ruling(float(weight), tuple(t for t, bad in zip(traits, own, strict=True) if bad))
            for row, weight, own in zip(rows, weights, above, strict=True)
        }

    def _said(self, row: Stored, ruling: Ruling | None) -> dict[str, Any]:
        traits = self.found.traits
        said: dict[str, Any] = {"row": row.number}
        said |= {"source": row.source} if row.source else {}
        if ruling is not None:
            said |= {"verdict": ruling.verdict, "weight": round(ruling.weight, 4), "above": ruling.above}
        said["difference"] = _by_trait(traits, row.differences(self.found.form))
        if self.found.form == "exact":
            said["last_prompt"] = _by_trait(traits, row.differences("last-prompt"))
        if any(one is not None for one in row.judge):
            said["judge"] = _by_trait(traits, row.judge)
        return said


def _by_trait(traits: Sequence[str], values: Sequence[float | None]) -> dict[str, float | None]:
    rounded = [None if one is None else round(one, 6) for one in values]
    return dict(zip(traits, rounded, strict=True))


def _dumped(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
