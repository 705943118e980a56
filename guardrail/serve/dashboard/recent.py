"""The newest requests of an audit log, kept up to date: read backwards, a little at a time, and never all."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from guardrail.audit.following import Follower
from guardrail.errors import AuditError
from guardrail.pipeline.warm_up import PREFIX as WARM_UP
from guardrail.plugins.audit import Change
from guardrail.serve.dashboard.lines import Line, RequestRow, id_of, parse
from guardrail.serve.dashboard.table import Block, Codes, Condition, Hashes, Records, joined, unix

LIMIT = 100_000
BLOCK_ROWS = 2_000
MOST_OPEN = 2_000
"""Requests without an outcome that are kept; older ones have ended without one."""
MAY_RUN_S = 900.0
STEP = 200
"""Lines between two looks at the clock."""
MOST_CHANGES = 20


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of reading the log. `complete`: all of it is read, or as much as is kept.

    `damaged` lines are no records; `other_versions` are of another version of the format. `problem` says why
    the log cannot be read now; what was read before is still there.
    """

    source: str
    records: Records
    changes: tuple[Change, ...]
    lines: int
    damaged: int
    other_versions: int
    late: int
    complete: bool
    problem: str | None

    @property
    def unreadable(self) -> int:
        """Lines that could not be read."""
        return self.damaged + self.other_versions


class Recent:
    """The last `limit` requests of the log at a path; without a path, those that `add` is told of.

    Threads may share it. Memory is bounded: about 250 bytes for each request, and as many for each of its
    scores as a few numbers take.
    """

    def __init__(self, path: Path | None, limit: int = LIMIT) -> None:
        self.source = "" if path is None else str(path)
        self._limit = limit
        self._log = None if path is None else Follower(path)
        self._lock = threading.Lock()
        self._problem: str | None = None
        self._clear()

    def update(self, budget_s: float = 0.3) -> Reading:
        """Read what is new, then older lines until the time is up."""
        with self._lock:
            deadline = time.monotonic() + budget_s
            try:
                if self._log is not None:
                    self._read(self._log, deadline)
                self._problem = None
            except AuditError as error:
                self._problem = str(error)
            return self._reading()

    def add(self, line: bytes) -> None:
        """One more line, as a log would have it."""
        with self._lock:
            self._newer(line)
            self._trim()

    def _clear(self) -> None:
        self._codes = (Codes(""), Codes(Condition("", "", None, 0.0, "")), Codes(Hashes()))
        self._blocks = deque[Records]()
        self._block = Block(*self._codes)
        self._open = OrderedDict[str, RequestRow]()
        self._ended = OrderedDict[int, None]()
        self._changes = deque[Change]()
        self._lines = self._damaged = self._other_versions = self._late = 0
        self._known: Records | None = None

    def _read(self, log: Follower, deadline: float) -> None:
        if log.replaced():
            self._clear()
        for _ in _until(deadline, log.newer(), self._newer):
            self._trim()
        while time.monotonic() < deadline and not self._complete:
            self._read_older(log, deadline)

    @property
    def _complete(self) -> bool:
        return self._log is None or self._log.exhausted or self._count >= self._limit

    @property
    def _count(self) -> int:
        return sum(map(len, self._blocks)) + len(self._block)

    def _read_older(self, log: Follower, deadline: float) -> None:
        """One block more. Its rows come backwards, so they are turned round when it is whole."""
        rows, lines = list[RequestRow](), log.older()
        try:
            for _ in _until(deadline, lines, lambda line: self._older(line, rows)):
                if len(rows) >= BLOCK_ROWS:
                    break
        finally:
            block = Block(*self._codes)
            for row in reversed(rows):
                self._put(block, row)
            if len(block):
                self._known = None
                self._blocks.appendleft(block.records())

    def _older(self, line: bytes, rows: list[RequestRow]) -> None:
        known = id_of(line)
        if known is not None and hash(known) in self._ended:
            self._lines += 1
            return
        found = self._parsed(line)
        if isinstance(found, Change) and len(self._changes) < MOST_CHANGES:
            self._changes.appendleft(found)
        if not isinstance(found, Line) or found.record.outcome == "late":
            return
        if found.record.outcome is None and _may_run(found.record):
            self._open.setdefault(found.record.id, found.record)
        elif self._first(found.record.id):
            rows.append(found.record)

    def _newer(self, line: bytes) -> None:
        found = self._parsed(line)
        if isinstance(found, Change):
            self._changes.append(found)
            if len(self._changes) > MOST_CHANGES:
                self._changes.popleft()
        elif isinstance(found, Line):
            self._follow(found)

    def _follow(self, found: Line) -> None:
        row = found.record
        if row.outcome is None:
            self._open[row.id] = row
            if len(self._open) > MOST_OPEN:
                self._keep(self._open.popitem(last=False)[1])
        elif row.outcome == "late":
            self._late += 1
        else:
            self._open.pop(row.id, None)
            if self._first(row.id):
                self._keep(row)

    def _keep(self, row: RequestRow) -> None:
        self._put(self._block, row)
        self._known = None
        if len(self._block) >= BLOCK_ROWS:
            self._blocks.append(self._block.records())
            self._block = Block(*self._codes)

    def _put(self, block: Block, row: RequestRow) -> None:
        try:
            if not row.id.startswith(WARM_UP):
                block.add(row)
        except (ValueError, OverflowError):
            self._damaged += 1

    def _parsed(self, line: bytes) -> object:
        self._lines += 1
        found = parse(line)
        self._damaged += found == "damaged"
        self._other_versions += found == "version"
        return found

    def _first(self, name: str) -> bool:
        """Whether a request was not seen to its end before; from now on it was."""
        key = hash(name)
        first = key not in self._ended
        self._ended[key] = None
        if len(self._ended) > self._limit + MOST_OPEN:
            self._ended.popitem(last=False)
        return first

    def _trim(self) -> None:
        while self._blocks and self._count - len(self._blocks[0]) >= self._limit:
            self._known = None
            self._blocks.popleft()

    def _reading(self) -> Reading:
        if self._known is None:
            self._known = joined([*self._blocks, self._block.records()])
        return Reading(
            source=self.source,
            records=self._with_open(self._known),
            changes=tuple(self._changes),
            lines=self._lines,
            damaged=self._damaged,
            other_versions=self._other_versions,
            late=self._late,
            complete=self._complete,
            problem=self._problem,
        )

    def _with_open(self, known: Records) -> Records:
        """With the requests that have no outcome so far, which may still get one."""
        if not self._open:
            return known
        block = Block(*self._codes)
        for row in self._open.values():
            self._put(block, row)
        return joined([known, block.records()])


def _may_run(row: RequestRow) -> bool:
    """Whether a request without an outcome is so young that it may still get one."""
    with suppress(ValueError):
        return unix(row.time) > time.time() - MAY_RUN_S
    return False


def _until(deadline: float, lines: Iterator[bytes], use: Callable[[bytes], None]) -> Iterator[None]:
    """Use lines, and give back control after every few of them, until the time is up."""
    for number, line in enumerate(lines, 1):
        use(line)
        if number % STEP == 0:
            yield
            if time.monotonic() > deadline:
                return
    yield
