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
        good = [row for row in rows if row.problem is None]
        weights, verdicts = self._judged(good)
        for row, weight in zip(good, weights, strict=True):
            scores.write(self._line(row, weight, verdicts.get(row.number)))
        places = {number: place for place, number in enumerate(chunk.numbers)}
        for row in rows:
            if row.problem is not None:
                said = {"row": row.number, "kind": row.kind, "reason": row.problem}
                aside.write(_dumped(said | {"data": chunk.shown(places[row.number])}))
        for name, writer in writers.items():
            writer.write(chunk, [verdicts.get(number) == name for number in chunk.numbers])

    def _judged(self, rows: Sequence[Stored]) -> tuple[Sequence[float | None], Mapping[int, str]]:
        """The weight of each row, and the verdict on it by number."""
        if self.limits is None or not rows:
            return [None] * len(rows), {}
        differences = np.array([row.differences(self.found.form) for row in rows], dtype=np.float64)
        judged = np.array([row.judge for row in rows], dtype=np.float64)
        parts = [
            self.limits.traits[trait].weights(differences[:, i], judged[:, i])
            for i, trait in enumerate(self.found.traits)
        ]
        weights = np.minimum.reduce(parts)
        above = self.limits.beyond(self.found.traits, differences, judged)
        self.rejected += int(above.sum())
        self.kept += int((~above).sum())
        names = {row.number: "rejected" if bad else "kept" for row, bad in zip(rows, above, strict=True)}
        return weights.tolist(), names

    def _line(self, row: Stored, weight: float | None, verdict: str | None) -> str:
        traits, exact = self.found.traits, self.found.form == "exact"
        said: dict[str, Any] = {"row": row.number}
        said |= {"source": row.source} if row.source else {}
        said |= {"verdict": verdict, "weight": round(weight or 0.0, 4)} if verdict else {}
        said["difference"] = _by_trait(traits, row.differences(self.found.form))
        if exact:
            said["last_prompt"] = _by_trait(traits, row.differences("last-prompt"))
        if any(one is not None for one in row.judge):
            said["judge"] = _by_trait(traits, row.judge)
        return _dumped(said)


def _by_trait(traits: Sequence[str], values: Sequence[float | None]) -> dict[str, float | None]:
    rounded = [None if one is None else round(one, 6) for one in values]
    return dict(zip(traits, rounded, strict=True))


def _dumped(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
