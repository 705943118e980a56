import json
from dataclasses import replace

import pytest

from guardrail.actions.review_queue import ReviewQueue
from guardrail.audit import Anchor, JsonLines, Key, history, read, verify
from guardrail.cli import run
from guardrail.testing import audit_record, ticket
from guardrail.types import Score


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "audit.jsonl"
    sink = JsonLines(path)
    for i in range(3):
        record = audit_record(f"r-{i}")
        score = Score(
            policy="test", trait="evil", layer=2, score=2.5, threshold=2.0, fired=True, mode="enforce"
        )
        record = replace(record, decision=replace(record.decision, scores=(score,)))
        sink.decided(record)
        sink.finished(replace(record, outcome="blocked"))
    sink.decided(audit_record("r-3", "allow"))
    return path


@pytest.fixture
def queue(tmp_path, monkeypatch):
    path = tmp_path / "queue.sqlite"
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(path))
    return ReviewQueue(path)


def test_tail_shows_the_last_requests_and_what_became_of_them(log, capsys):
    assert run(["audit", "tail", str(log), "-n", "2"]) == 0
    text = capsys.readouterr().out
    assert "r-1" not in text
    assert "evil 2.50 / 2.00" in text
    assert "interrupted" in text


def test_tail_shows_what_stopped_a_reply(tmp_path, capsys):
    record = audit_record("r-0", "allow")
    score = Score(policy="watch", trait="evil", layer=2, score=3.5, threshold=2.0, fired=True, mode="enforce")
    stopped = replace(audit_record("r-1").decision, policy="watch", scores=(score,))
    JsonLines(tmp_path / "audit.jsonl").finished(replace(record, reply_decision=stopped, outcome="blocked"))
    assert run(["audit", "tail", str(tmp_path / "audit.jsonl")]) == 0
    text = capsys.readouterr().out
    assert "watch" in text
    assert "evil 3.50 / 2.00" in text


def test_tail_as_json_is_one_record_each_line(log, capsys):
    assert run(["audit", "tail", str(log), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["id"], row["outcome"]) for row in rows] == [
        ("r-0", "blocked"),
        ("r-1", "blocked"),
        ("r-2", "blocked"),
        ("r-3", "interrupted"),
    ]
    assert rows[0]["decision"]["scores"][0]["score"] == 2.5
    assert "messages" not in rows[0]


def test_verify_says_that_a_log_is_whole(log, capsys):
    assert run(["audit", "verify", str(log)]) == 0
    assert "ok: 7 lines, 4 requests" in capsys.readouterr().out


def test_verify_finds_an_edit_and_exits_with_1(log, capsys):
    log.write_text(log.read_text().replace('"block"', '"allow"', 1))
    assert run(["audit", "verify", str(log)]) == 1
    out = capsys.readouterr().out
    assert "audit.jsonl:2: does not follow the previous line" in out
    assert "DAMAGED: " in out
    assert run(["audit", "verify", str(log), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["faults"][0]["line"]) == (False, 2)


def test_what_is_no_log_is_one_fault_and_not_one_a_line(tmp_path, capsys):
    (path := tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n' * 50)
    assert run(["audit", "verify", str(path)]) == 1
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == f"{path}:1: not an audit event: damaged, or cut off during writing (and 49 more lines)"
    assert second.startswith("DAMAGED: 50 lines")


def test_verify_with_the_head_that_was_kept_finds_a_cut_off_end(log, capsys):
    head = verify(log).head
    assert run(["audit", "verify", str(log), "--head", head]) == 0
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    assert run(["audit", "verify", str(log)]) == 0
    assert run(["audit", "verify", str(log), "--head", head]) == 1
    assert "cut off" in capsys.readouterr().out


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("GUARDRAIL_AUDIT_KEY", "0123456789abcdef")
    return Key(b"0123456789abcdef")


def test_verify_checks_signatures_with_the_key_of_the_environment_or_a_file(
    tmp_path, key, capsys, monkeypatch
):
    path, file = tmp_path / "signed.jsonl", tmp_path / "key"
    JsonLines(path, key=key).decided(audit_record())
    assert run(["audit", "verify", str(path)]) == 0
    assert "signed: 1 lines\n" in capsys.readouterr().out
    monkeypatch.delenv("GUARDRAIL_AUDIT_KEY")
    assert run(["audit", "verify", str(path)]) == 0
    assert "not checked without the key" in capsys.readouterr().out
    file.write_text("another key of 16")
    assert run(["audit", "verify", str(path), "--key-file", str(file)]) == 1
    assert "signed.jsonl:1: is not signed with this key" in capsys.readouterr().out
    assert run(["audit", "verify", str(path), "--key-env", "NO_SUCH_KEY"]) == 2
    assert "NO_SUCH_KEY is not set" in capsys.readouterr().err


def test_verify_compares_a_log_and_its_older_files_with_their_anchor(tmp_path, capsys):
    path, anchor = tmp_path / "audit.jsonl", tmp_path / "anchor"
    sink = JsonLines(path, anchor=Anchor(anchor, path, 0.0))
    sink.decided(audit_record())
    path.rename(tmp_path / "older.jsonl")
    sink.decided(audit_record())
    assert run(["audit", "verify", str(path), "--anchor", str(anchor)]) == 1
    assert "another log was sealed at this path" in capsys.readouterr().out
    both = [str(path), str(tmp_path / "older.jsonl")]
    assert run(["audit", "verify", *both, "--anchor", str(anchor)]) == 0
    assert capsys.readouterr().out.count("anchored: all but the last 0 lines") == 2
    assert run(["audit", "verify", *both, "--anchor", str(anchor), "--json"]) == 0
    assert [json.loads(line)["ok"] for line in capsys.readouterr().out.splitlines()] == [True, True]


def test_prune_keeps_what_is_young(tmp_path, key, capsys):
    path, anchor = tmp_path / "audit.jsonl", tmp_path / "anchor"
    sink = JsonLines(path, key=key, anchor=Anchor(anchor, path, 0.0, key))
    sink.decided(replace(audit_record("old"), time="2020-01-01T00:00:00.000+00:00"))
    sink.decided(audit_record("new"))
    command = ["audit", "prune", str(path), "--keep", "6m", "--anchor", str(anchor)]
    assert run(command) == 0
    assert "pruned: 1 lines" in capsys.readouterr().out
    assert run(["audit", "verify", str(path), "--anchor", str(anchor)]) == 0
    assert "pruned: 1 older lines" in capsys.readouterr().out
    assert run(command) == 0
    assert "nothing is older" in capsys.readouterr().out
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) is None
    assert run(["audit", "prune", str(path), "--keep", "soon"]) == 2
    assert [record.id for record in read(path)] == ["new"]


def test_tail_shows_changes_and_resolve_writes_who_decided(log, queue, capsys):
    queue.open(ticket("t-1"))
    assert run(["audit", "resolve", "t-1", "--deny", "--by", "ann", "--log", str(log)]) == 0
    capsys.readouterr()
    assert run(["audit", "tail", str(log), "--changes"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["ticket_id"], row["state"], row["reviewer"]) == ("t-1", "denied", "ann")
    assert verify(log).ok


def test_resolve_touches_no_ticket_if_the_log_cannot_be_written(tmp_path, queue):
    queue.open(ticket("t-1"))
    command = ["audit", "resolve", "t-1", "--deny", "--by", "ann", "--log", str(tmp_path / "none")]
    assert run(command) == 2
    assert queue.get("t-1").state == "pending"


@pytest.mark.parametrize("verb", ["tail", "verify"])
def test_a_log_that_is_not_there_exits_with_2(verb, tmp_path, capsys):
    assert run(["audit", verb, str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_pending_lists_what_waits(queue, capsys):
    assert run(["audit", "pending"]) == 0
    assert f"no ticket is waiting in {queue.path}" in capsys.readouterr().out
    queue.open(ticket("t-1", "May I?"))
    assert run(["audit", "pending"]) == 0
    printed = capsys.readouterr().out
    assert "May I?" in printed
    assert "guardrail audit resolve" in printed
    assert run(["audit", "pending", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["state"], row["messages"][0]["content"]) == ("t-1", "pending", "May I?")


def test_resolve_decides_once(queue, capsys):
    queue.open(ticket("t-1"))
    assert run(["audit", "resolve", "t-1", "--approve", "--by", "ann", "--note", "fine"]) == 0
    assert "t-1: approved by ann" in capsys.readouterr().out
    assert queue.get("t-1").note == "fine"
    assert run(["audit", "resolve", "t-1", "--deny", "--by", "bob"]) == 2
    assert "was already approved by ann" in capsys.readouterr().err


def test_resolve_takes_an_answer_by_hand(queue, log, capsys):
    queue.open(ticket("t-1"))
    command = ["audit", "resolve", "t-1", "--answer", "Ask a doctor.", "--by", "ann", "--log", str(log)]
    assert run(command) == 0
    assert "t-1: answered by ann" in capsys.readouterr().out
    assert queue.get("t-1").answer == "Ask a doctor."
    assert [(review.state, review.reviewer) for review in history(log)] == [("answered", "ann")]
    assert "doctor" not in log.read_text()


@pytest.mark.parametrize("decision", [[], ["--deny", "--answer", "No."]])
def test_resolve_needs_one_decision(decision, queue):
    queue.open(ticket("t-1"))
    assert run(["audit", "resolve", "t-1", *decision, "--by", "ann"]) == 2
    assert queue.get("t-1").state == "pending"


@pytest.mark.parametrize("by", [[], ["--by", " "]])
def test_resolve_needs_the_name_of_who_decides(by, queue, capsys):
    queue.open(ticket("t-1"))
    assert run(["audit", "resolve", "t-1", "--approve", *by]) == 2
    assert "--by" in capsys.readouterr().err
    assert queue.get("t-1").state == "pending"


def test_another_queue_can_be_named(tmp_path, queue, capsys):
    other = ReviewQueue(tmp_path / "other.sqlite")
    other.open(ticket("t-7"))
    assert (
        run(["audit", "resolve", "t-7", "--deny", "--by", "ann", "--queue", str(other.path), "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["state"] == "denied"


def test_resolved_tickets_are_pruned_and_others_stay(queue, capsys, tmp_path):
    for name in ("t-1", "t-2", "t-3"):
        queue.open(ticket(name))
    queue.resolve("t-1", True, "ann")
    queue.resolve("t-2", False, "ann")
    with queue.writing() as database:
        database.execute("UPDATE tickets SET resolved = '2020' || substr(resolved, 5) WHERE id != 't-2'")
        database.execute("UPDATE tickets SET created = '2020' || substr(created, 5)")
    assert run(["audit", "prune", "--tickets", "--keep", "90d"]) == 0
    assert "pruned: 1 tickets that were resolved before" in capsys.readouterr().out
    assert [queue.get(name) is None for name in ("t-1", "t-2", "t-3")] == [True, False, False]
    assert run(["audit", "prune", "--keep", "90d"]) == 2
    assert "name an audit log, or give --tickets" in capsys.readouterr().err
    assert run(["audit", "prune", "log.jsonl", "--queue", "q", "--keep", "90d"]) == 2
    assert "--queue belongs to --tickets" in capsys.readouterr().err


@pytest.mark.parametrize(
    "verb",
    [
        ["pending"],
        ["deliveries"],
        ["prune", "--tickets", "--keep", "90d"],
        ["resolve", "t-1", "--deny", "--by", "ann"],
    ],
)
def test_a_queue_that_is_named_has_to_exist(verb, tmp_path, monkeypatch, capsys):
    missing = tmp_path / "none.sqlite"
    assert run(["audit", *verb, "--queue", str(missing)]) == 2
    assert capsys.readouterr().err == f"error: --queue {missing}: there is no such file\n"
    assert not missing.exists()


def test_a_queue_that_nothing_was_put_into_yet_is_empty(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(tmp_path / "none.sqlite"))
    assert run(["audit", "prune", "--tickets", "--keep", "90d", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tickets"] == 0


def test_a_ticket_that_a_webhook_still_has_to_get_is_not_pruned(queue):
    queue.open(ticket("t-1"))
    queue.resolve("t-1", True, "ann")
    with queue.writing() as database:
        database.execute("UPDATE tickets SET delivery_state = 'waiting'")
    assert queue.prune("9999") == 0
    with queue.writing() as database:
        database.execute("UPDATE tickets SET delivery_state = 'dead'")
    assert queue.prune("9999") == 1


def test_plugins_list_shows_the_built_ins(capsys):
    assert run(["plugins", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["guardrail.actions.block"]["state"] == "built-in"
    assert rows["guardrail.cli.check"] == {
        "name": "guardrail.cli.check",
        "version": "",
        "state": "built-in",
        "hooks": ["guardrail_cli"],
    }
    assert run(["plugins", "list"]) == 0
    assert "guardrail_escalation_sinks" in capsys.readouterr().out


def test_a_plugin_that_the_environment_misspells_exits_with_2(monkeypatch, capsys):
    monkeypatch.setenv("GUARDRAIL_PLUGINS", "no-such-plugin")
    assert run(["plugins", "list"]) == 2
    assert "`no-such-plugin` is not installed" in capsys.readouterr().err
