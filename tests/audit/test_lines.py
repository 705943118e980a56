"""Events as lines and back."""

import json
from dataclasses import replace

import pytest

from guardrail.audit.lines import GENESIS, decode, encode, line_hash, prev_of
from guardrail.testing import audit_record
from guardrail.testing import decision as some_decision
from guardrail.types import Timing


def row(**changes):
    return json.loads(encode("decision", audit_record(), GENESIS)) | changes


def test_a_line_says_version_event_and_the_hash_before_it_and_wastes_no_space():
    line = encode("decision", audit_record(), GENESIS)
    assert line.startswith(b'{"v":1,"event":"decision","prev":"' + b"0" * 64 + b'","record":{"id":"r-1",')
    assert b" " not in line
    assert prev_of(line) == GENESIS


@pytest.mark.parametrize("kind", ["decision", "outcome"])
def test_an_event_reads_back_the_same(kind):
    record = replace(
        audit_record(),
        tags=("a", "b"),
        timing=Timing(guard=1.0, prefill=2.0, queue=3.0, total=4.0),
        reply_decision=replace(some_decision("escalate"), stage="response", token=7),
        text="It said this.",
        outcome="answered",
    )
    event = decode(encode(kind, record, GENESIS))
    assert (event.kind, event.record) == (kind, record)


def test_a_record_from_before_replies_were_decided_on_under_their_new_name_reads_the_same():
    record = replace(audit_record(), reply_decision=some_decision("block"))
    old = json.loads(encode("outcome", record, GENESIS))
    old["record"]["response"] = old["record"].pop("reply_decision")
    assert decode(json.dumps(old).encode()).record == record


def test_a_record_without_tags_and_with_numbers_missing_reads():
    old = row()
    del old["record"]["tags"]
    old["record"]["timing"]["guard"] = None
    record = decode(json.dumps(old).encode()).record
    assert (record.tags, record.timing.guard) == ((), 0.0)


@pytest.mark.parametrize(
    "wrong",
    [{"v": 2}, {"event": "other"}, {"record": None}, {"record": {}}, {"record": []}, {"event": None}],
)
def test_what_is_not_an_event_of_this_version_is_none(wrong):
    assert decode(json.dumps(row(**wrong)).encode()) is None


@pytest.mark.parametrize("line", [b"", b"[]", b"7", b"{}", b"\xff", b"{"])
def test_what_is_not_an_event_at_all_is_none_and_names_nothing(line):
    assert decode(line) is None
    assert prev_of(line) is None


def test_the_hash_is_that_of_the_bytes():
    assert line_hash(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
