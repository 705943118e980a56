"""Old lines go, and what is left can be verified."""

import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hostile import edit

from guardrail.audit import Anchor, JsonLines, Key, history, prune, read, verify
from guardrail.audit.keep import cutoff
from guardrail.audit.lines import encode, line_hash
from guardrail.errors import AuditError, ConfigError
from guardrail.plugins.audit import Review
from guardrail.testing import audit_record

KEY = Key(b"0123456789abcdef")
UNTIL = "2026-06-01T00:00:00.000+00:00"
OLD, NEW = "2026-05-31T23:59:59.999+00:00", UNTIL


def write(sink, time, *names):
    for name in names:
        record = replace(audit_record(name), time=time, text=f"what {name} said")
        sink.decided(record)
        sink.finished(replace(record, outcome="blocked"))


@pytest.mark.parametrize("key", [None, KEY])
def test_what_is_left_is_whole_and_says_what_went(kind, log, key):
    sink = kind(log, key=key)
    write(sink, OLD, "r-1", "r-2")
    write(sink, NEW, "r-3")
    made = prune(log, UNTIL, key)
    assert made.removed == 4
    assert [record.id for record in read(log)] == ["r-3"]
    assert list(history(log)) == [made, made]
    report = verify(log, key=key)
    assert (report.ok, report.removed, report.lines) == (True, 4, 4)
    write(sink, NEW, "r-4")
    write(kind(log, key=key), NEW, "r-5")
    assert verify(log, key=key).ok


@pytest.mark.parametrize("key", [None, KEY])
def test_lines_of_a_clock_that_ran_ahead_go_with_the_old_ones_behind_them(kind, log, key):
    sink = kind(log, key=key)
    ahead = "2099-01-01T00:00:00.000+00:00"
    write(sink, OLD, "r-1")
    write(sink, ahead, "r-2")
    write(sink, OLD, "r-3")
    write(sink, NEW, "r-4")
    write(sink, ahead, "r-5")
    assert prune(log, UNTIL, key).removed == 6
    assert [record.id for record in read(log)] == ["r-4", "r-5"]
    assert verify(log, key=key).ok


def test_lines_of_a_clock_that_ran_ahead_stay_if_all_behind_them_is_young(kind, log):
    sink = kind(log)
    write(sink, "2099-01-01T00:00:00.000+00:00", "r-1")
    write(sink, NEW, "r-2")
    assert prune(log, UNTIL) is None


def test_a_log_may_be_pruned_again_and_again_and_to_its_end(kind, log):
    times = [f"2026-0{month}-15T00:00:00.000+00:00" for month in range(1, 6)]
    sink = kind(log)
    name = None
    for i, time in enumerate(times):
        write(sink, time, f"r-{i}")
    for i, time in enumerate(times[1:], 1):
        made = prune(log, time)
        # the record of each pruning is a line as well, and is young
        assert made.removed == 2 * i
        name = name or made.chain
        assert made.chain == name == verify(log).chain
        assert verify(log).ok
    prune(log, "2126-01-01T00:00:00.000+00:00")
    assert list(read(log)) == []
    assert verify(log).ok
    write(sink, NEW, "r-9")
    assert verify(log).ok


def test_nothing_that_is_young_enough_goes(kind, log):
    write(kind(log), NEW, "r-1")
    before = verify(log).head
    assert prune(log, UNTIL) is None
    assert verify(log).head == before


def test_nothing_of_what_went_is_on_the_disk(kind, log, tmp_path):
    sink = kind(log)
    write(sink, OLD, *(f"old-{i}" for i in range(50)))
    write(sink, NEW, "new")
    sink.close()
    prune(log, UNTIL)
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"what old-7 said" not in kept
    assert b"what new said" in kept
    if kind is JsonLines:
        assert log.stat().st_mode & 0o777 == 0o600


def test_a_sink_that_is_open_goes_on_in_the_pruned_log(kind, log):
    sink = kind(log)
    write(sink, OLD, "r-1")
    write(sink, NEW, "r-2")
    prune(log, UNTIL)
    write(sink, NEW, "r-3")
    assert [record.id for record in read(log)] == ["r-2", "r-3"]
    assert verify(log).ok


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[0].replace(b'"removed":2', b'"removed":1'), *lines[1:]],
        lambda lines: lines[:-1],
        lambda lines: [lines[0], *lines[2:]],
    ],
    ids=["start removed", "start edited", "record removed", "first kept removed"],
)
def test_tampering_with_a_pruned_log_is_found(kind, log, change):
    sink = kind(log)
    write(sink, OLD, "r-1")
    write(sink, NEW, "r-2")
    prune(log, UNTIL)
    edit(log, change)
    assert not verify(log).ok


def test_the_seals_of_what_was_pruned_need_the_seal_of_the_pruning(kind, log, anchor):
    sink = kind(log, anchor=Anchor(anchor, log, 0.0))
    write(sink, OLD, "r-1")
    write(sink, NEW, "r-2")
    prune(log, UNTIL, anchor=Anchor(anchor, log))
    assert verify(log, anchor=anchor).ok
    write(sink, NEW, "r-3")
    assert verify(log, anchor=anchor).ok
    prune(log, "2126-01-01T00:00:00.000+00:00")
    assert "is gone" in verify(log, anchor=anchor).faults[0].message


def test_a_pruning_that_somebody_made_up_fits_no_key(log):
    write(JsonLines(log, key=KEY), OLD, "r-1", "r-2")

    def pretend(lines):
        row = {"time": NEW, "until": NEW, "removed": 2, "last": line_hash(lines[1]), "chain": "c"}
        from guardrail.audit.lines import GENESIS, Pruning

        made = Pruning(**row)
        return [
            encode("pruning", made, GENESIS),
            *lines[2:],
            encode("pruning", made, line_hash(lines[-1])),
        ]

    edit(log, pretend)
    assert verify(log).faults[0].message == "is not signed, though lines before it are"
    assert not verify(log, key=KEY).ok


def test_a_damaged_log_is_not_pruned(kind, log):
    write(kind(log), OLD, "r-1", "r-2")
    edit(log, lambda lines: [lines[0], *lines[2:]])
    before = log.read_bytes()
    with pytest.raises(AuditError, match="not pruned"):
        prune(log, UNTIL)
    assert log.read_bytes() == before


def test_a_signed_log_is_pruned_with_its_key_only(kind, log):
    write(kind(log, key=KEY), OLD, "r-1")
    with pytest.raises(AuditError, match="give its key"):
        prune(log, UNTIL)
    with pytest.raises(AuditError, match="not pruned"):
        prune(log, UNTIL, Key(b"another key, long"))
    assert prune(log, UNTIL, KEY).removed == 2


def test_a_kill_before_the_last_step_leaves_the_log_as_it_was(log, monkeypatch):
    write(JsonLines(log), OLD, "r-1")
    before = log.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        prune(log, UNTIL)
    monkeypatch.undo()
    assert log.read_bytes() == before
    assert prune(log, UNTIL).removed == 2


def test_a_review_is_an_event_of_its_own(kind, log):
    sink = kind(log)
    review = Review(time=NEW, ticket_id="t-1", state="denied", reviewer="ann")
    sink.reviewed(review)
    assert list(history(log)) == [review]
    assert verify(log).ok


NOW = datetime(2026, 8, 31, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("keep", "date"),
    [
        ("6m", "2026-02-28"),
        ("30d", "2026-08-01"),
        ("2w", "2026-08-17"),
        ("1y", "2025-08-31"),
        ("18m", "2025-02-28"),
    ],
)
def test_how_long_to_keep_is_a_time_of_the_calendar(keep, date):
    assert cutoff(keep, NOW) == f"{date}T12:30:00.000+00:00"


@pytest.mark.parametrize("keep", ["", "6", "m", "6 months", "-1d", "0d", "1.5y", "9999999d", "9999y"])
def test_what_is_not_a_time_is_said(keep):
    with pytest.raises(ConfigError, match="6m"):
        cutoff(keep, NOW)


def test_a_log_behind_a_link_is_pruned_where_it_is(kind, log, tmp_path):
    real = tmp_path / "disk" / "log"
    real.parent.mkdir()
    log.symlink_to(real)
    sink = kind(log)
    write(sink, OLD, "r-1")
    write(sink, NEW, "r-2")
    sink.close()
    assert prune(log, UNTIL).removed == 2
    assert log.is_symlink()
    assert b"what r-1 said" not in real.read_bytes()
    write(sink, NEW, "r-3")
    assert [record.id for record in read(real)] == ["r-2", "r-3"]
    assert verify(log).ok
