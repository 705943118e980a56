"""What an audit log says about the guard itself, and what a reload may change."""

from datetime import UTC, datetime

import pytest
from ruamel.yaml import YAML
from tiny import FIRES, NEVER, TOKENIZER, policies, policy, write_vectors

from guardrail import Guard
from guardrail.actions.review_queue import ReviewQueue
from guardrail.audit import history, read, verify
from guardrail.errors import ConfigError
from guardrail.plugins.hookspecs import hookimpl
from guardrail.testing import tiny_model

GREEDY = {"temperature": 0, "max_new_tokens": 2}


@pytest.fixture
def log(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def write(tmp_path, log):
    """Writes a policy file with a log."""
    write_vectors(tmp_path, tiny_model())

    def made(*rules, audit=None, **keys):
        file, settings = tmp_path / "policies.yaml", {"jsonl": str(log), **(audit or {})}
        YAML(typ="safe", pure=True).dump(policies(tmp_path, *rules, audit=settings, **keys), file)
        return file

    return made


def changes(log):
    return [(change.event, change.changed) for change in history(log)]


def test_start_end_and_every_change_of_policies_are_records_of_their_own(write, log):
    with Guard(tiny_model(), TOKENIZER, write(policy(threshold=NEVER))) as made:
        made.chat("Hello", **GREEDY)
        write(policy(threshold=FIRES))
        assert made.reload()
        made.chat("Hello", **GREEDY)
    assert changes(log) == [
        ("started", ()),
        ("policies_changed", ("policy_sha256",)),
        ("stopped", ()),
    ]
    first, second, last = history(log)
    decisions = [record.decision for record in read(log)]
    assert [d.policy_sha256 for d in decisions] == [first.policy_sha256, second.policy_sha256]
    assert second.policy_sha256 == last.policy_sha256
    assert {first.vectors_sha256} == {d.vectors_sha256 for d in decisions}
    assert any(version.startswith("transformers ") for version in first.versions)
    assert verify(log).ok


def test_a_record_says_when_its_request_began_and_ended(write, log):
    before = datetime.now(UTC)
    with Guard(tiny_model(), TOKENIZER, write(policy(threshold=NEVER))) as made:
        made.chat("Hello", **GREEDY)
    (record,) = read(log)
    began, ended = datetime.fromisoformat(record.time), datetime.fromisoformat(record.ended)
    assert before.replace(microsecond=0) <= began <= ended <= datetime.now(UTC)


def test_a_record_names_the_person_who_decided_while_the_request_waited(write, log, tmp_path, monkeypatch):
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(tmp_path / "queue.sqlite"))

    class Ann(ReviewQueue):
        name = "ann"

        def open(self, ticket):
            super().open(ticket)
            self.resolve(ticket.id, True, "ann")

    class Plugin:
        @hookimpl
        def guardrail_escalation_sinks(self):
            return [Ann()]

    rule = policy({"escalate": {"to": "ann", "wait_s": 5}}, threshold=FIRES)
    with Guard(tiny_model(), TOKENIZER, write(rule), plugins=[Plugin()]) as made:
        assert made.chat("Hello", **GREEDY).outcome == "answered"
    (record,) = read(log)
    assert record.reviewer == "ann"


def test_a_model_that_changes_is_on_record_and_logged_once(write, log, caplog):
    import torch

    model = tiny_model()
    weight = model.model.layers[1].mlp.down_proj.weight
    with Guard(model, TOKENIZER, write(policy(threshold=NEVER))) as made:
        made.check("Hello")
        with torch.no_grad():
            weight.mul_(2.0)
        for _ in range(2):
            assert made.check("Hello").decision.action == "block"
    assert [event for event, _ in changes(log)] == ["started", "model_changed", "stopped"]
    assert [change.note for change in history(log)][1]
    (said,) = [r.getMessage() for r in caplog.records if "has changed" in r.getMessage()]
    assert "values of weights" in said
    assert "guardrail calibrate" in said


OTHER_SINKS = [{"text": True}, {"jsonl": "elsewhere.jsonl"}, {"on_error": "drop"}, {"clear": ["tags"]}]


@pytest.mark.parametrize("audit", OTHER_SINKS)
def test_a_reload_that_would_change_the_log_is_refused_as_a_whole(audit, write, log, tmp_path):
    with Guard(tiny_model(), TOKENIZER, write(policy(threshold=NEVER))) as made:
        write(policy(threshold=FIRES), audit=audit)
        assert not made.reload()
        assert "`audit` cannot change while the guard runs" in str(made.policies.error)
        assert made.chat("a secret", **GREEDY).outcome == "answered"
        write(policy(threshold=FIRES))
        assert made.reload()
        assert made.chat("a secret", **GREEDY).outcome == "blocked"
    assert "a secret" not in log.read_text()


def test_a_change_that_cannot_be_recorded_does_not_happen(write, log):
    with Guard(tiny_model(), TOKENIZER, write(policy(threshold=NEVER))) as made:
        write(policy(threshold=FIRES))
        log.rename(log.with_suffix(".old"))
        log.mkdir()
        assert not made.reload()
        log.rmdir()
        assert made.reload()
        assert made.chat("Hello", **GREEDY).outcome == "blocked"


def test_a_start_that_cannot_be_recorded_is_an_error_of_the_configuration(write, tmp_path):
    write(policy(threshold=NEVER), audit={"jsonl": "/dev/full"})
    with pytest.raises(ConfigError, match="No space left"):
        Guard(tiny_model(), TOKENIZER, tmp_path / "policies.yaml")


def test_a_key_that_is_missing_is_an_error_of_the_configuration(write, log):
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        Guard(tiny_model(), TOKENIZER, write(policy(), audit={"key": {"env": "NO_SUCH_KEY"}}))


def test_a_guard_with_a_key_and_an_anchor_writes_a_log_that_proves_itself(write, log, tmp_path, monkeypatch):
    from guardrail.audit import load_key
    from guardrail.plugins.audit import KeySource

    monkeypatch.setenv("SOME_KEY", "0123456789abcdef")
    anchor, key = tmp_path / "anchor", KeySource(env="SOME_KEY")
    settings = {"key": {"env": "SOME_KEY"}, "anchor": {"file": str(anchor)}}
    with Guard(tiny_model(), TOKENIZER, write(policy(), audit=settings)) as made:
        made.chat("Hello", conversation="c-1", **GREEDY)
    report = verify(log, key=load_key(key), anchor=anchor)
    assert (report.ok, report.signed, report.lines, report.unsealed) == (True, 4, 4, 0)
    (record,) = read(log)
    assert record.conversation.startswith("hmac:")
