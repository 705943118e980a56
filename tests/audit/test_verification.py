"""Which line a fault is at, and what it says."""

import pytest

from guardrail.audit.lines import GENESIS, encode, line_hash
from guardrail.audit.verification import check
from guardrail.testing import audit_record


def chain(*events):
    """The lines of (kind, id) pairs, each naming the one before it."""
    lines, prev = [], GENESIS
    for kind, name in events:
        lines.append(encode(kind, audit_record(name), prev))
        prev = line_hash(lines[-1])
    return lines


LINES = chain(("decision", "r-1"), ("decision", "r-2"), ("outcome", "r-1"))


def report(lines, last_whole=True, head=None):
    pairs = [(line, i < len(lines) - 1 or last_whole) for i, line in enumerate(lines)]
    return check("audit.log", pairs, head)


def faults(found):
    return [(fault.line, fault.message) for fault in found.faults]


def test_a_whole_log_is_counted():
    found = report(LINES)
    assert (found.path, found.lines, found.requests, found.interrupted) == ("audit.log", 3, 2, 1)
    assert (found.faults, found.ok) == ((), True)
    assert found.head == line_hash(LINES[-1])


def test_a_log_without_lines_is_whole():
    found = report([])
    assert (found.lines, found.head, found.ok) == (0, GENESIS, True)
    assert report([], head=GENESIS).ok


@pytest.mark.parametrize(
    ("lines", "options", "line", "word"),
    [
        (LINES, {"last_whole": False}, 3, "cut off"),
        ([LINES[0], b"noise"], {}, 2, "damaged"),
        ([LINES[0], LINES[2]], {}, 2, "previous"),
        (LINES[:2], {"head": line_hash(LINES[2])}, 2, "head"),
        ([], {"head": line_hash(LINES[2])}, 0, "head"),
    ],
)
def test_a_fault_has_its_line_and_a_reason(lines, options, line, word):
    found = report(lines, **options)
    assert not found.ok
    ((at, message),) = faults(found)
    assert at == line
    assert word in message


@pytest.mark.parametrize("place", range(3))
def test_a_kept_head_may_be_that_of_any_line(place):
    assert report(LINES, head=line_hash(LINES[place])).ok


def test_the_line_after_a_damaged_one_must_name_it():
    damaged = [LINES[0], LINES[1].replace(b"r-2", b"r-9"), LINES[2]]
    assert [line for line, _ in faults(report(damaged))] == [3]
    assert report(damaged).requests == 2


def test_a_torn_event_that_still_reads_counts_as_a_request():
    found = report(LINES[:1], last_whole=False)
    assert (found.requests, found.interrupted, len(found.faults)) == (1, 1, 1)
