"""Caches scores on disk by content, so that no reply is judged twice. Survives interruption at any moment.

Scores are stored as they arrive, each batch of a judge in one transaction. After an interruption whole
batches are asked again, so the numbers are the same to the last bit. The key is a hash of the judge (model
and address), metric, rubric, question and answer.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol, TypeAlias

from guardrail.errors import JudgeError
from guardrail.extract.judges.opinions import Opinion
from guardrail.files.sqlite import Table, opened, transaction
from guardrail.plugins.protocols import Judge, JudgeRequest

Opinions: TypeAlias = Sequence[tuple[int, Opinion]]
"""(index of the request, opinion) for the requests of one batch."""
SCORES = Table("scores", {"key": "TEXT PRIMARY KEY", "score": "REAL", "mass": "REAL"}, "WITHOUT ROWID")


class StreamingJudge(Judge, Protocol):
    """A judge that returns opinions batch by batch; `identity` fully identifies the judge."""

    identity: str

    def stream(self, requests: Sequence[JudgeRequest]) -> Iterator[Opinions]: ...


def remembering(judge: StreamingJudge, path: Path | None) -> Judge:
    """The judge with a cache in `path`; without a path, the judge itself."""
    return judge if path is None else CachedJudge(judge, path)


def in_order(judge: StreamingJudge, requests: Sequence[JudgeRequest]) -> list[Opinion]:
    """All opinions of a stream, in the order of the requests."""
    found = {i: opinion for batch in judge.stream(requests) for i, opinion in batch}
    return [found[i] for i in range(len(requests))]


def key_of(identity: str, request: JudgeRequest) -> str:
    """The cache key of a score."""
    parts = [identity, request.metric, request.rubric, request.question, request.answer]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class CachedJudge:
    """Asks the judge only for scores that are not cached; equal requests are asked once."""

    def __init__(self, judge: StreamingJudge, path: Path) -> None:
        self.name = judge.name
        self.judge = judge
        self.path = path
        self.asked = 0
        """The requests that the cache could not answer."""

    def scores(self, requests: Sequence[JudgeRequest]) -> Sequence[float | None]:
        """Raises JudgeError if the judge cannot be reached, or the cache cannot be used."""
        return [one.score for one in self.opinions(requests)]

    def opinions(self, requests: Sequence[JudgeRequest]) -> Sequence[Opinion]:
        """As `scores`, with the mass of the numbers if the judge tells it."""
        keys = [key_of(self.judge.identity, request) for request in requests]
        try:
            with closing(opened(self.path, SCORES, durable=False)) as database:
                known = _known(database, keys)
                self._ask(database, dict(zip(keys, requests, strict=True)), known)
        except (OSError, sqlite3.Error) as error:
            raise JudgeError(f"{self.path}: the cache of judge scores cannot be used: {error}") from error
        return [known[key] for key in keys]

    def _ask(
        self,
        database: sqlite3.Connection,
        requests: Mapping[str, JudgeRequest],
        known: dict[str, Opinion],
    ) -> None:
        missing = [key for key in requests if key not in known]
        if not missing:
            return
        self.asked += len(missing)
        for batch in self.judge.stream([requests[key] for key in missing]):
            rows = [(missing[i], opinion.score, opinion.mass) for i, opinion in batch]
            with transaction(database):
                database.executemany(
                    "INSERT OR REPLACE INTO scores (key, score, mass) VALUES (?, ?, ?)", rows
                )
            known.update((missing[i], opinion) for i, opinion in batch)


def _known(database: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Opinion]:
    known: dict[str, Opinion] = {}
    for key in dict.fromkeys(keys):
        row = database.execute("SELECT score, mass FROM scores WHERE key = ?", (key,)).fetchone()
        if row is not None:
            known[key] = Opinion(*row)
    return known
