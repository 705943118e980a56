"""Checks that an audit log is intact: that each line is an event, follows the one before, and is signed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from guardrail.audit.keys import Key, is_signed
from guardrail.audit.lines import GENESIS, Event, Pruning, Record, chain_of, decode, line_hash, prev_of
from guardrail.plugins.audit import AuditRecord


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a line (1-based), or with the whole log (0)."""

    line: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a log holds, and what is wrong with it.

    `head` is the hash of the last line. Keep it elsewhere to show later that nothing was cut off. `chain` is
    the hash of the line that the log began with. `signed` lines carry a signature; `key_given` says whether
    these were checked. `removed` lines were pruned. `unsealed` lines came after the last one that the anchor
    has sealed; None without an anchor.
    """

    path: str
    lines: int
    head: str
    requests: int
    interrupted: int
    chain: str = ""
    signed: int = 0
    key_given: bool = False
    removed: int = 0
    unsealed: int | None = None
    faults: tuple[Fault, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the log has no faults. Interrupted requests do not count as faults."""
        return not self.faults


def check(
    path: str,
    lines: Iterable[tuple[bytes, bool]],
    head: str | None = None,
    key: Key | None = None,
) -> VerifyReport:
    """A report on (line, whether it ends in a newline) pairs; `head` must be the hash of one of them."""
    return walk(path, lines, [head] if head else [], key).report(head)


def walk(
    path: str, lines: Iterable[tuple[bytes, bool]], heads: Collection[str] = (), key: Key | None = None
) -> Chain:
    """Follow a log to its end, and note at which line each of these heads is."""
    chain = Chain(path, frozenset(heads), key)
    for line, whole in lines:
        chain.faults.extend(chain.follow(line, whole))
    chain.faults.extend(chain.end())
    return chain


class Chain:
    """Follows the lines of one log."""

    def __init__(self, path: str, heads: frozenset[str], key: Key | None) -> None:
        self.path = path
        self.name = ""
        self.met: dict[str, int] = {GENESIS: 0}
        """The line of each head that was met; the head of a log before its first line is GENESIS."""
        self.start: Pruning | None = None
        """What the first line says about older ones, if they were pruned."""
        self.faults: list[Fault] = []
        self.count = 0
        self._heads, self._key = heads, key
        self._prev = GENESIS
        self._signed = 0
        self._prunings: list[Pruning] = []
        self._decided: set[str] = set()
        self._finished: set[str] = set()

    def _broken(self, line: bytes, event: object | None, whole: bool) -> str | None:
        if not whole:
            return "the last line is cut off"
        if event is None:
            return "not an audit event: damaged, or cut off during writing"
        if prev_of(line) != self._prev:
            return "does not follow the previous line, which was edited, or lines are missing"
        return None

    def follow(self, line: bytes, whole: bool) -> Iterator[Fault]:
        """The faults of the next line."""
        self.count += 1
        event = decode(line)
        if text := self._broken(line, event, whole):
            yield Fault(self.count, text)
        if whole and event is not None:
            yield from self._signature(line)
        self._meet(line, event)

    def end(self) -> Iterator[Fault]:
        """The faults of the log as a whole."""
        if self._key is not None and self.count and not self._signed:
            yield Fault(0, "a key was given, and no line is signed")
        if self.start is not None and self.start not in self._prunings:
            yield Fault(1, "says that older lines were pruned, which no line of the chain confirms")

    def report(
        self, head: str | None = None, more: Iterable[Fault] = (), unsealed: int | None = None
    ) -> VerifyReport:
        """What was found, with `more` faults."""
        faults = [*self.faults, *more]
        if head is not None and head not in self.met:
            faults.append(
                Fault(self.count, "the given head is not in this log: lines were cut off or pruned")
            )
        return VerifyReport(
            path=self.path,
            lines=self.count,
            head=self._prev,
            requests=len(self._decided),
            interrupted=len(self._decided - self._finished),
            chain=self.name,
            signed=self._signed,
            key_given=self._key is not None,
            removed=self.start.removed if self.start else 0,
            unsealed=unsealed,
            faults=tuple(faults),
        )

    def _signature(self, line: bytes) -> Iterator[Fault]:
        if not is_signed(line):
            if self._signed:
                yield Fault(self.count, "is not signed, though lines before it are")
            return
        self._signed += 1
        if self._key is not None and not self._key.fits(line):
            yield Fault(self.count, "is not signed with this key: changed, forged, or another key's")

    def _meet(self, line: bytes, event: Event[Record] | None) -> None:
        record = event.record if event else None
        self._prev = line_hash(line)
        if self.count == 1:
            self.name = chain_of(line)
            if isinstance(record, Pruning):
                # stands for the lines that are gone, and the next line follows the last of these
                self.start, self._prev = record, record.last
        elif isinstance(record, Pruning):
            self._prunings.append(record)
        if event is not None and isinstance(record, AuditRecord):
            (self._decided if event.kind == "decision" else self._finished).add(record.id)
        if self._prev in self._heads:
            self.met[self._prev] = self.count
