"""What the audit log of a server says of requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardrail.audit.reading import events, verify
from guardrail.errors import AuditError


@dataclass(frozen=True, slots=True)
class Recorded:
    """The end of one audit record."""

    id: str
    outcome: str


def recorded(log: Path, names: set[str]) -> tuple[set[str], Mapping[str, Sequence[Recorded]]]:
    """The ids of all records of these conversations, and the ends that each conversation has."""
    begun, ended = set[str](), defaultdict[str, list[Recorded]](list)
    for event in events(log):
        record = event.record
        if record.conversation in names:
            begun.add(record.id)
            if record.outcome is not None:
                ended[record.conversation].append(Recorded(record.id, record.outcome))
    return begun, ended


def intact(log: Path) -> bool:
    """Whether `guardrail audit verify` finds nothing."""
    try:
        return verify(log).ok
    except AuditError:
        return False
