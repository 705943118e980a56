"""What a log is kept in: lines that are appended one after another, and old ones that may be cut off."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

MakeLine: TypeAlias = Callable[[str], bytes]
"""Makes a line, given the hash of the line before it."""

PATIENCE_S = 2.0
"""How long a write waits for another process that holds the log."""
SHORT_PATIENCE_S = 0.05
"""How long it waits as long as the last write waited in vain."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Remove the first `count` lines and put `first` in their place; append what `last` makes.

    `removed` is the hash of the last line that goes, which is the one before `last` if all go.
    """

    count: int
    removed: str
    first: bytes
    last: MakeLine


class Store(Protocol):
    """Each call locks out other threads and processes. Raises OSError, ValueError or sqlite3.Error."""

    def append(self, make: MakeLine) -> str: ...
    def first(self) -> bytes | None: ...
    def last(self) -> bytes | None: ...
    def cut(self, find: Callable[[Iterable[bytes]], Cut | None]) -> None: ...
    def close(self) -> None: ...


class ProcessLock:
    """A lock for the threads of one process. A child process begins with one that nobody holds."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def __enter__(self) -> None:
        self._locks.setdefault(os.getpid(), threading.Lock()).acquire()

    def __exit__(self, *_: object) -> None:
        self._locks[os.getpid()].release()


class Patience:
    """How long to wait for a log that someone else holds: not long again if the last wait was in vain.

    Otherwise every request would wait as long, also if records that cannot be written are dropped.
    """

    def __init__(self) -> None:
        self.seconds = PATIENCE_S

    def waited(self, in_vain: bool) -> bool:
        """Learn from a wait; whether the next one will be of another length."""
        before, self.seconds = self.seconds, SHORT_PATIENCE_S if in_vain else PATIENCE_S
        return before != self.seconds
