"""The guided tour: ends by itself, hides nothing, leaves nothing behind."""

import json
import os
from dataclasses import asdict, replace

import pytest
from packs import card, install, own_site

from guardrail import Guard, demo
from guardrail.actions.review_queue import PATH_VARIABLE, ReviewQueue
from guardrail.cli import run
from guardrail.cli.demo import command as verb
from guardrail.cli.demo import tour
from guardrail.cli.demo.tour import Stop, stops, temporary_queue
from guardrail.demo.prompts import TOUR
from guardrail.plugins.pack import seal
from guardrail.types import Decision, Reply
from guardrail.vectors.values import TraitVectors

ESCALATING = """
version: 1
vectors: demo
calibration: demo
policies:
  - {id: person, trait: evil, threshold: 2.0, action: escalate}
  - {id: again, trait: hallucination, threshold: 2.5, action: {rephrase: {max_attempts: 1}}}
"""


@pytest.fixture(scope="module", autouse=True)
def _short_replies():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tour, "MAX_NEW_TOKENS", 6)
        yield


@pytest.fixture(scope="module")
def seen():
    with temporary_queue(), Guard.from_pretrained("demo") as guard:
        return list(stops(guard))


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A pack for the demo model, with a tour of its own."""
    tour = [asdict(replace(TOUR[0], name="plain")), asdict(replace(TOUR[1], name="cruel"))]
    site = own_site(tmp_path, monkeypatch)
    files = {"tour.json": json.dumps(tour)}
    return install(site, "demo", demo.VECTORS, demo.CALIBRATION, files=files, trait="evil")


def test_a_pack_brings_its_own_tour(packed, capsys):
    assert run(["demo", "--policies", "pack:auto"]) == 0
    shown = capsys.readouterr().out
    assert "answers 2 prompts" in shown
    assert "The policies in pack:demo/harm then decide" in " ".join(shown.split())
    assert "1/2 plain" in shown
    assert "2/2 cruel" in shown
    assert "not what the tour expects" not in shown


def test_another_model_needs_a_pack_or_policies(tmp_path, monkeypatch, capsys):
    own_site(tmp_path, monkeypatch)
    assert run(["demo", "--model", "some/model"]) == 2
    assert "no installed pack has policies `auto`" in capsys.readouterr().err


def test_a_damaged_tour_is_named(packed, capsys):
    (packed / "tour.json").write_text('[{"name": "x"}]')
    seal(packed, card(TraitVectors.load(demo.VECTORS).provenance.fingerprint, "evil"))
    assert run(["demo", "--policies", "pack:harm"]) == 2
    assert "pack `demo` is damaged: tour.json: `0.shows`" in capsys.readouterr().err


def stop(prompt, *actions, outcome=None):
    *earlier, last = [Decision(status="evaluated", action=action) for action in actions]
    reply = Reply(text="", decision=last, history=(), audit_id="a", earlier=tuple(earlier))
    return Stop(prompt=prompt, reply=reply, unguarded="", outcome=outcome or last.action)


def test_the_tour_shows_every_prompt_and_ends_with_0(capsys):
    assert run(["demo"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out
    assert max(map(len, captured.out.splitlines())) <= verb.WIDTH
    summary = captured.out[captured.out.index("summary") :]
    for number, prompt in enumerate(TOUR, 1):
        assert f"{number}/{len(TOUR)} {prompt.name}" in captured.out
        assert prompt.name in summary
        assert prompt.messages[-1]["content"][:60] in captured.out
    assert "guardrail policy explain" in summary


def test_a_clear_case_is_decided_clearly(seen):
    found = {s.prompt.name: s for s in seen}
    assert all(s.as_expected for s in seen)
    assert found["harmless"].reply.text == found["harmless"].unguarded
    assert found["malicious"].reply.new_tokens == 0
    steered = found["flattering"]
    assert steered.reply.text != steered.unguarded
    assert steered.reply.steered_passes == steered.reply.new_tokens


def test_json_is_one_object_each_prompt_and_the_same_on_every_run(seen, capsys):
    assert run(["demo", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == [prompt.name for prompt in TOUR]
    assert [(row["decided"], row["reply"], row["unguarded"]) for row in rows] == [
        (list(s.decided), s.reply.text, s.unguarded) for s in seen
    ]
    assert [score["score"] for row in rows for score in row["decisions"][0]["scores"]] == pytest.approx(
        [score.score for s in seen for score in s.first.scores], rel=1e-5
    )


def test_what_is_not_as_expected_is_said(tmp_path, capsys):
    path = tmp_path / "policies.yaml"
    path.write_text(ESCALATING)
    assert run(["demo", "--policies", str(path)]) == 0
    out = capsys.readouterr().out
    assert "✗ block" in out
    assert "decisions are not what the tour expects." in out
    assert "waits for a person: guardrail audit pending" in out
    assert "asked again" in out


def test_tickets_go_to_the_users_queue_where_there_is_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "queue.sqlite"))
    path = tmp_path / "policies.yaml"
    path.write_text(ESCALATING)
    assert run(["demo", "--policies", str(path), "--json"]) == 0
    tickets = {json.loads(line)["ticket_id"] for line in capsys.readouterr().out.splitlines()} - {None}
    assert {ticket.id for ticket in ReviewQueue().pending()} == tickets != set()


def test_else_the_tour_leaves_nothing_behind(monkeypatch):
    monkeypatch.delenv(PATH_VARIABLE)
    with temporary_queue() as temporary:
        folder = os.path.dirname(os.environ[PATH_VARIABLE])
        assert temporary
        assert os.path.isdir(folder)
    assert PATH_VARIABLE not in os.environ
    assert not os.path.exists(folder)


@pytest.mark.parametrize(
    ("expected", "actions", "outcome", "as_expected"),
    [
        ("block", ["block"], None, True),
        ("escalate", ["block"], None, False),
        ("rephrase", ["rephrase", "allow"], None, True),
        ("rephrase", ["rephrase", "rephrase"], "block", False),
        ("rephrase", ["allow"], None, False),
    ],
)
def test_a_prompt_asked_again_is_as_expected_only_when_it_is_answered(
    expected, actions, outcome, as_expected
):
    prompt = next(p for p in TOUR if p.expected == expected)
    found = stop(prompt, *actions, outcome=outcome)
    assert found.as_expected is as_expected
    assert found.decided == (*actions[:-1], outcome or actions[-1])
