"""What a key and an anchor show that a chain alone does not: an end that was changed, cut off or forged."""

import json
from dataclasses import replace

import pytest
from hostile import edit

from guardrail.audit import Anchor, JsonLines, Key, Sqlite, events, verify, verify_all
from guardrail.audit.lines import encode, line_hash
from guardrail.errors import AuditError
from guardrail.testing import audit_record

KEY, OTHER = Key(b"0123456789abcdef"), Key(b"fedcba9876543210")


def write(sink, *names):
    for name in names or ("r-1", "r-2", "r-3"):
        sink.decided(audit_record(name))
        sink.finished(replace(audit_record(name), outcome="blocked"))


def forged(lines, key=None):
    """One more line, as somebody would write it who knows the format."""
    return [*lines, encode("decision", audit_record("forged"), line_hash(lines[-1]), key)]


def edited(lines):
    return [*lines[:-1], lines[-1].replace(b'"blocked"', b'"answered"')]


def rewritten(lines):
    """The whole log, edited, with every link mended."""
    made, prev = [], "0" * 64
    for line in lines:
        row = json.loads(line) | {"prev": prev}
        row.pop("mac", None)
        row["record"]["decision"]["action"] = "allow"
        made.append(json.dumps(row, separators=(",", ":")).encode())
        prev = line_hash(made[-1])
    return made


END = [edited, forged, rewritten]


@pytest.mark.parametrize("change", END)
def test_without_a_key_the_end_of_a_chain_proves_nothing(kind, log, change):
    write(kind(log))
    edit(log, change)
    assert verify(log).ok


@pytest.mark.parametrize("change", [*END, lambda lines: forged(lines, OTHER)])
def test_with_a_key_no_line_can_be_changed_or_forged(kind, log, change):
    write(kind(log, key=KEY))
    assert verify(log, key=KEY).ok
    assert verify(log, key=KEY).signed == 6
    edit(log, change)
    assert not verify(log, key=KEY).ok


def test_who_has_no_key_sees_that_there_is_one(kind, log):
    write(kind(log, key=KEY))
    report = verify(log)
    assert (report.ok, report.signed, report.key_given) == (True, 6, False)


def test_the_wrong_key_fits_no_line(kind, log):
    write(kind(log, key=KEY), "r-1")
    assert [fault.line for fault in verify(log, key=OTHER).faults] == [1, 2]


def test_a_log_from_before_there_was_a_key_goes_on_and_its_old_lines_are_held_by_the_chain(kind, log):
    write(kind(log), "old")
    write(kind(log, key=KEY), "new")
    report = verify(log, key=KEY)
    assert (report.ok, report.signed, report.lines) == (True, 2, 4)
    edit(log, lambda lines: [lines[0].replace(b'"block"', b'"allow"'), *lines[1:]])
    assert verify(log, key=KEY).faults[0].line == 2


def test_a_log_that_is_not_signed_at_all_is_no_signed_log(kind, log):
    write(kind(log))
    assert "no line is signed" in verify(log, key=KEY).faults[0].message


def test_a_signed_log_goes_on_with_its_own_key_only(kind, log):
    write(kind(log, key=KEY))
    with pytest.raises(AuditError, match="give its key"):
        kind(log)
    with pytest.raises(AuditError, match="another key"):
        kind(log, key=OTHER)
    write(kind(log, key=KEY))
    assert verify(log, key=KEY).ok


@pytest.mark.parametrize("signed", [None, KEY])
@pytest.mark.parametrize(
    "change",
    [edited, rewritten, lambda lines: lines[:-1], lambda _: [], lambda lines: lines[:2]],
    ids=["edited", "rewritten", "last removed", "emptied", "most removed"],
)
def test_an_anchor_holds_what_it_has_sealed(kind, log, anchor, change, signed):
    sink = kind(log, key=signed, anchor=Anchor(anchor, log, 0.0, signed))
    write(sink)
    sink.close()
    assert verify(log, key=signed, anchor=anchor).ok
    edit(log, change)
    assert not verify(log, key=signed, anchor=anchor).ok


def test_what_came_after_the_last_seal_is_counted(kind, log, anchor):
    sink = kind(log, anchor=Anchor(anchor, log, 3600.0))
    write(sink)
    assert verify(log, anchor=anchor).unsealed == 5
    sink.close()
    assert verify(log, anchor=anchor).unsealed == 0
    edit(log, forged)
    report = verify(log, anchor=anchor)
    assert (report.ok, report.unsealed) == (True, 1)


def test_a_log_that_was_emptied_and_went_on_is_not_the_one_that_was_sealed(log, anchor):
    sink = JsonLines(log, anchor=Anchor(anchor, log, 0.0))
    write(sink)
    log.write_bytes(b"")
    write(sink)
    assert "emptied or replaced" in verify(log, anchor=anchor).faults[0].message


def test_a_rotated_log_is_whole_together_with_its_older_file(tmp_path, log, anchor):
    sink, older = JsonLines(log, anchor=Anchor(anchor, log, 0.0)), tmp_path / "audit.log.1"
    write(sink)
    log.rename(older)
    write(sink)
    assert not verify(log, anchor=anchor).ok
    assert [report.ok for report in verify_all([log, older], anchor=anchor)] == [True, True]


def test_an_anchor_of_another_log_is_not_this_ones(tmp_path, log, anchor):
    write(JsonLines(log))
    other = tmp_path / "other.log"
    write(JsonLines(other, anchor=Anchor(anchor, other, 0.0)))
    assert "nothing of this log" in verify(log, anchor=anchor).faults[0].message
    assert verify(other, anchor=anchor).ok


def test_two_logs_that_begin_with_the_same_record_share_an_anchor(tmp_path, anchor):
    logs = {JsonLines: tmp_path / "a.jsonl", Sqlite: tmp_path / "a.sqlite"}
    sinks = [kind(log, anchor=Anchor(anchor, log, 0.0)) for kind, log in logs.items()]
    records = [audit_record(f"r-{i}") for i in range(3)]
    for sink, order in zip(sinks, ([0, 1, 2], [0, 2, 1]), strict=True):
        for i in order:
            sink.decided(records[i])
    assert all(verify(log, anchor=anchor).ok for log in logs.values())


def test_an_anchor_that_was_changed_is_a_fault(log, anchor):
    write(JsonLines(log, key=KEY, anchor=Anchor(anchor, log, 0.0, KEY)))
    edit(anchor, lambda lines: [lines[0], *lines[2:]])
    assert "the anchor itself" in verify(log, key=KEY, anchor=anchor).faults[0].message


def test_an_anchor_is_another_file(log):
    with pytest.raises(ValueError, match="is the log itself"):
        Anchor(log, log)


def test_an_anchor_that_cannot_be_written_is_an_error_of_the_record(tmp_path, log):
    (tmp_path / "gone").mkdir()
    anchor = Anchor(tmp_path / "gone" / "anchor", log, 0.0)
    sink = JsonLines(log, anchor=anchor)
    (tmp_path / "gone" / "anchor").unlink()
    (tmp_path / "gone").rmdir()
    with pytest.raises(AuditError, match="No such file"):
        sink.decided(audit_record())
    assert [event.record.id for event in events(log)] == ["r-1"]


@pytest.mark.parametrize("record", [{"id": ["a"]}, {"id": None}, {"time": 5}, {"prompt_tokens": "many"}])
def test_a_field_of_another_type_is_a_fault_and_no_crash(log, record):
    write(JsonLines(log), "r-1")
    line = json.loads(log.read_bytes().splitlines()[0])
    line["record"] |= record
    log.write_text(json.dumps(line) + "\n")
    assert "not an audit event" in verify(log).faults[0].message
    assert list(events(log)) == []


def test_json_that_is_nested_too_deeply_is_a_fault_and_no_crash(log):
    log.write_text("[" * 100_000 + "\n")
    assert "not an audit event" in verify(log).faults[0].message
