"""The base model's own greedy replies, kept in a file by prompt, so that none is generated twice.

Replies are generated in batches of similar length, as many at a time as the runner computes at once, and
stored as soon as they are there. What is missing is always batched in the same order, so that an interrupted
run goes on with the batches that an undisturbed one would have made.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from guardrail.engines import Continuation
from guardrail.engines.transformers.batches import bucketed
from guardrail.errors import ExtractionError
from guardrail.extract.reply_moments import spoken
from guardrail.extract.subject import Subject
from guardrail.files.sqlite import Table, opened, transaction
from guardrail.train.screening.encoding import Ids

ADD = "INSERT INTO replies (key, text, ids) VALUES (?, ?, ?)"
REPLIES = Table("replies", {"key": "BLOB PRIMARY KEY", "text": "TEXT", "ids": "TEXT"}, "WITHOUT ROWID")


@dataclass(frozen=True, slots=True)
class Reference:
    """What the base model says itself: the text, and its tokens without the end token."""

    text: str
    ids: Ids


class References:
    """Greedy replies (temperature 0) of at most `max_new_tokens`. Raises ExtractionError for a bad file."""

    def __init__(self, subject: Subject, path: Path, max_new_tokens: int) -> None:
        self._subject, self._path, self._new_tokens = subject, path, max_new_tokens
        recipe = json.dumps([asdict(subject.fingerprint), max_new_tokens], sort_keys=True)
        self._recipe = recipe.encode()
        self.generated = self.tokens = 0
        """How many replies were generated, and how many tokens they have."""

    def __call__(self, prompts: Sequence[Ids]) -> Mapping[Ids, Reference]:
        """The reply to each prompt, generated if the file lacks it."""
        keys = {prompt: self._key(prompt) for prompt in prompts}
        try:
            with closing(opened(self._path, REPLIES)) as database:
                self._complete(database, keys)
                return {prompt: _known(database, key) for prompt, key in keys.items()}
        except (OSError, sqlite3.Error) as error:
            raise ExtractionError(f"{self._path}: the replies cannot be kept: {error}") from error

    def _key(self, prompt: Ids) -> bytes:
        return hashlib.sha256(self._recipe + json.dumps(prompt).encode()).digest()[:16]

    def _complete(self, database: sqlite3.Connection, keys: Mapping[Ids, bytes]) -> None:
        missing = sorted(
            (prompt for prompt, key in keys.items() if not _has(database, key)),
            key=lambda ids: (len(ids), ids),
        )
        together = self._subject.rows * self._subject.runner.width
        for batch in bucketed([len(ids) for ids in missing], together):
            prompts = [missing[i] for i in batch]
            replies = self._subject.continued(prompts, max_new_tokens=self._new_tokens)
            with transaction(database):
                pairs = zip(prompts, replies, strict=True)
                database.executemany(ADD, [(keys[prompt], *_row(reply)) for prompt, reply in pairs])
            self.generated += len(replies)
            self.tokens += sum(len(reply.ids) for reply in replies)


def _has(database: sqlite3.Connection, key: bytes) -> bool:
    return database.execute("SELECT 1 FROM replies WHERE key = ?", (key,)).fetchone() is not None


def _row(reply: Continuation) -> tuple[str, str]:
    return reply.text, json.dumps(spoken(reply))


def _known(database: sqlite3.Connection, key: bytes) -> Reference:
    text, ids = database.execute("SELECT text, ids FROM replies WHERE key = ?", (key,)).fetchone()
    return Reference(text, tuple(json.loads(ids)))
