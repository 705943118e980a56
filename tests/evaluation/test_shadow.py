"""Shadow policies, from audit logs as the guard writes them."""

import json
import re

import pytest

from guardrail.audit import Sqlite
from guardrail.cli import run
from guardrail.errors import ConfigError
from guardrail.evaluation.shadow import Label, read_labels, shadowed
from guardrail.plugins.audit import AuditRecord
from guardrail.types import Decision, Score

MODES = {"live": "enforce", "ghost": "shadow"}
STRENGTH = {"live": "block", "ghost": "escalate"}


def record(number, fired=(), status="evaluated"):
    scores = tuple(
        Score(policy=p, trait=t, layer=2, score=1.0, threshold=0.5, fired=p in fired, mode=MODES[p])
        for p, t in (("live", "evil"), ("ghost", "humor"))
    )
    action = "block" if "live" in fired else "allow"
    would = "block" if "live" in fired else "escalate" if "ghost" in fired else "allow"
    decision = Decision(status=status, action=action, would_action=would, fired=tuple(fired), scores=scores)
    return AuditRecord(
        id=f"id{number}",
        time="2026",
        kind="chat",
        decision=decision,
        prompt_sha256="0",
        prompt_tokens=3,
        outcome="answered",
    )


@pytest.fixture
def records():
    """Ten prompts: the shadow fires on three, beside the enforced policy on one of them."""
    fired = [("live", "ghost"), ("ghost",), ("ghost",), ("live",), *[()] * 6]
    return [record(i, which) for i, which in enumerate(fired)]


def test_a_shadow_policy_is_counted_beside_the_enforced_ones(records):
    found = shadowed(records)
    ghost, live = found.policies["ghost"], found.policies["live"]
    assert (ghost.evaluated, ghost.fired.value, ghost.fired_as_shadow) == (10, 0.3, 3)
    assert ghost.fired.low == pytest.approx(0.0667, abs=1e-4)
    assert ghost.would == {"block": 1, "escalate": 2}
    assert (ghost.alone, ghost.beside) == (2, {"live": 1})
    assert (live.fired_as_shadow, live.modes) == (0, {"enforce": 10})
    assert found.changed.value == 0.2
    assert found.would_action == {"block": 2, "escalate": 2, "allow": 6}


def test_records_that_were_not_evaluated_are_left_out_and_said(records):
    found = shadowed([*records, record(99, (), "error")])
    assert (found.records, found.evaluated) == (11, 10)
    assert "1 records were not evaluated" in found.notes[0]
    with pytest.raises(ConfigError, match="no evaluated request"):
        shadowed([record(1, (), "error")])


def test_labels_by_record_and_by_trait_say_how_rightly_it_fired(records):
    labels = {
        "id0": Label(True),
        "id1": Label(False),
        "id2": Label(None, {"humor": True}),
        "id5": Label(True),
    }
    labels |= {"id6": Label(False), "gone": Label(True)}
    found = shadowed(records, labels)
    ghost = found.policies["ghost"].agreement
    assert ghost.labelled == 5
    assert ghost.precision.value == pytest.approx(2 / 3)
    assert ghost.tpr.value == pytest.approx(2 / 3)
    assert ghost.fpr.value == 0.5
    # the label of id2 is about humor alone
    assert found.policies["live"].agreement.labelled == 4
    assert "1 labels match no evaluated record" in found.notes[0]


def test_labels_of_another_log_are_refused(records):
    with pytest.raises(ConfigError, match="no label matches"):
        shadowed(records, {"other": Label(True)})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"audit_id": "a"}'], "give `label` or `labels`"),
        (['{"audit_id": "a", "label": 1}', '{"audit_id": "a", "label": 0}'], "labelled twice"),
        (['{"audit_id": "a", "label": 3}'], "`label`"),
        (['{"id": "a", "label": 1}'], "unknown key `id`"),
    ],
)
def test_bad_labels_are_named_with_their_line(tmp_path, lines, message):
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        read_labels(path)
    assert f"labels.jsonl:{len(lines)}" in str(error.value)


@pytest.fixture
def log(tmp_path, records):
    sink = Sqlite(tmp_path / "audit.sqlite")
    for one in records:
        sink.decided(one)
        sink.finished(one)
    sink.close()
    return tmp_path / "audit.sqlite"


def test_the_command_reads_a_log_and_needs_no_model(log, tmp_path, capsys):
    labels = tmp_path / "labels.jsonl"
    labels.write_text("\n".join(json.dumps({"audit_id": f"id{i}", "label": int(i < 2)}) for i in range(10)))
    report = tmp_path / "shadow.html"
    command = ["evaluate", "--shadow", str(log), "--labels", str(labels)]
    assert run([*command, "--html", str(report), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["policies"]["ghost"]["would"] == {"block": 1, "escalate": 2}
    assert found["policies"]["ghost"]["agreement"]["labelled"] == 10
    assert "ghost" in report.read_text()
    assert run(command) == 0
    assert "ghost" in capsys.readouterr().out
    assert run(["evaluate", "--shadow", str(tmp_path / "none.sqlite")]) == 2
