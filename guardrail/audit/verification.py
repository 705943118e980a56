"""Checks that an audit log is intact: every line is an event and every link of the chain fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from guardrail.audit.lines import GENESIS, decode, line_hash, prev_of


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a line (1-based)."""

    line: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """`head` is the hash of the last line. Keep it elsewhere to show later that nothing was cut off."""

    path: str
    lines: int
    head: str
    requests: int
    interrupted: int
    faults: tuple[Fault, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the log has no faults. Interrupted requests do not count as faults."""
        return not self.faults


def check(path: str, lines: Iterable[tuple[bytes, bool]], head: str | None = None) -> VerifyReport:
    """A report on (line, whether it ends in a newline) pairs; `head` must be the hash of one of them."""
    chain = _Chain(head)
    faults = [fault for line, whole in lines for fault in chain.follow(line, whole)]
    if head not in (None, GENESIS) and not chain.met:
        faults.append(Fault(chain.count, "the given head is not in this log: lines were cut off"))
    return VerifyReport(
        path=path,
        lines=chain.count,
        head=chain.prev,
        requests=len(chain.decided),
        interrupted=len(chain.decided - chain.finished),
        faults=tuple(faults),
    )


class _Chain:
    """Follows the lines of one log."""

    def __init__(self, head: str | None) -> None:
        self.head = head
        self.met = False
        self.count = 0
        self.prev = GENESIS
        self.decided: set[str] = set()
        self.finished: set[str] = set()

    def follow(self, line: bytes, whole: bool) -> Iterator[Fault]:
        self.count += 1
        event = decode(line)
        if not whole:
            yield Fault(self.count, "the last line is cut off")
        elif event is None:
            yield Fault(self.count, "not an audit event: damaged, or cut off during writing")
        elif prev_of(line) != self.prev:
            yield Fault(
                self.count, "does not follow the previous line, which was edited, or lines are missing"
            )
        if event is not None:
            (self.decided if event.kind == "decision" else self.finished).add(event.record.id)
        self.prev = line_hash(line)
        self.met = self.met or self.prev == self.head
