import json
import multiprocessing
import sqlite3
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from guardrail.actions.review_queue import ReviewQueue, default_path
from guardrail.errors import EscalationError
from guardrail.files.records import decision_to_json, utc_in, utc_now
from guardrail.plugins.protocols import EscalationSink
from guardrail.testing import ticket
from guardrail.types import Message, Score, Steering


@pytest.fixture
def queue(tmp_path):
    return ReviewQueue(tmp_path / "deep" / "queue.sqlite")


def test_the_queue_is_an_escalation_sink(queue):
    assert isinstance(queue, EscalationSink)


def test_nothing_is_made_before_the_first_ticket(queue):
    assert queue.pending() == []
    assert queue.get("t-1") is None
    assert not queue.path.exists()


def test_a_ticket_comes_back_as_it_was(queue):
    score = Score(policy="p", trait="evil", layer=4, score=2.5, threshold=2.0, fired=True, mode="enforce")
    filed = ticket("t-1", "Žluťoučký \x00 😀")
    filed = replace(filed, decision=replace(filed.decision, scores=(score,), warnings=("w",)))
    queue.open(filed)
    assert queue.get("t-1") == filed


def test_directions_of_steering_are_not_stored(queue):
    steering = Steering(
        policy="p",
        trait="evil",
        operator="cap",
        layers=(2,),
        directions=(np.ones(4, np.float32),),
        limits=(1.0,),
    )
    filed = ticket()
    queue.open(replace(filed, decision=replace(filed.decision, steering=(steering,))))
    assert queue.get("t-1").decision.steering == (replace(steering, directions=()),)


def test_another_process_sees_the_ticket_at_once(queue):
    queue.open(ticket())
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(_resolve_elsewhere, (queue.path,)) == "approved"
    assert queue.get("t-1").resolver == "elsewhere"


def _resolve_elsewhere(path):
    return ReviewQueue(path).resolve("t-1", True, "elsewhere").state


def test_a_ticket_is_resolved_once(queue):
    queue.open(ticket())
    done = queue.resolve("t-1", False, "ann", "too risky")
    assert (done.state, done.resolver, done.note) == ("denied", "ann", "too risky")
    assert done.resolved is not None
    assert queue.pending() == []
    with pytest.raises(EscalationError, match="t-1 was already denied by ann"):
        queue.resolve("t-1", True, "bob")
    assert queue.get("t-1") == done


def test_a_person_can_answer_by_hand(queue):
    queue.open(ticket())
    done = queue.resolve("t-1", False, "ann", "asked the doctor", "Twice a day.")
    assert (done.state, done.answer, done.note) == ("answered", "Twice a day.", "asked the doctor")
    assert queue.get("t-1") == done


@pytest.mark.parametrize(("approve", "answer"), [(True, "Twice a day."), (False, " ")])
def test_an_answer_stands_alone_and_has_a_text(queue, approve, answer):
    queue.open(ticket())
    with pytest.raises(EscalationError, match="a person's answer"):
        queue.resolve("t-1", approve, "ann", answer=answer)
    assert queue.get("t-1").state == "pending"


def test_an_approval_is_used_once(queue):
    queue.open(ticket())
    assert not queue.use("t-1")
    queue.resolve("t-1", True, "ann")
    assert [queue.use("t-1"), queue.use("t-1"), queue.use("t-9")] == [True, False, False]
    assert queue.get("t-1").used is not None


OLD_TABLE = """CREATE TABLE tickets (
    id TEXT PRIMARY KEY, policy TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied')),
    created TEXT NOT NULL, decision TEXT NOT NULL, messages TEXT NOT NULL,
    resolved TEXT, resolver TEXT, note TEXT) STRICT"""


def test_files_of_older_versions_still_work(queue):
    queue.path.parent.mkdir()
    database = sqlite3.connect(queue.path)
    database.execute(OLD_TABLE)
    decided = json.dumps(decision_to_json(ticket().decision))
    values = ("t-0", "test", "pending", "2026-01-01", decided, '[{"role": "user", "content": "Old?"}]')
    database.execute(f"INSERT INTO tickets VALUES ({'?, ' * 6} NULL, NULL, NULL)", values)
    database.execute("PRAGMA user_version = 1")
    database.commit()
    database.close()
    queue.open(replace(ticket(), created="2026-01-02", client="app", prompt_sha256="ab"))
    assert [waiting.id for waiting in queue.pending()] == ["t-0", "t-1"]
    assert queue.resolve("t-0", False, "ann", answer="New.").state == "answered"
    assert (queue.get("t-1").client, queue.get("t-1").prompt_sha256) == ("app", "ab")


def test_an_unknown_ticket_is_an_error(queue):
    with pytest.raises(EscalationError, match="no ticket t-9"):
        queue.resolve("t-9", True, "ann")


def test_the_same_ticket_cannot_be_opened_twice(queue):
    queue.open(ticket())
    with pytest.raises(EscalationError, match="UNIQUE"):
        queue.open(ticket())


def test_tickets_wait_in_the_order_they_came(queue):
    for i in (3, 1, 2):
        queue.open(replace(ticket(f"t-{i}"), created=f"2026-01-0{i}"))
    assert [waiting.id for waiting in queue.pending()] == ["t-1", "t-2", "t-3"]


def test_threads_share_a_queue_that_none_of_them_made(queue):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: ReviewQueue(queue.path).open(ticket(f"t-{i}")), range(40)))
    assert len(queue.pending()) == 40


def test_of_many_people_one_resolves(queue):
    queue.open(ticket())

    def attempt(i):
        try:
            return queue.resolve("t-1", bool(i % 2), f"p{i}").resolver
        except EscalationError:
            return None

    with ThreadPoolExecutor(8) as pool:
        winners = [who for who in pool.map(attempt, range(16)) if who]
    assert winners == [queue.get("t-1").resolver]


def _decide_all(path, who):
    queue, won = ReviewQueue(path), []
    path.with_name(f"ready-{who}").touch()
    while len(list(path.parent.glob("ready-*"))) < 3:
        time.sleep(0.001)
    for i in range(30):
        with suppress(EscalationError):
            queue.resolve(f"t-{i}", who == 1, f"p{who}")
            won.append(i)
    return won


def test_of_people_in_several_processes_one_decides_each_ticket(queue):
    for i in range(30):
        queue.open(ticket(f"t-{i}"))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        won = pool.starmap(_decide_all, [(queue.path, who) for who in range(3)], chunksize=1)
    assert sorted(i for mine in won for i in mine) == list(range(30))
    for who, mine in enumerate(won):
        assert {queue.get(f"t-{i}").resolver for i in mine} <= {f"p{who}"}


def test_only_the_owner_can_read_the_file(queue):
    queue.open(ticket())
    assert stat.S_IMODE(queue.path.stat().st_mode) == 0o600


def test_a_file_that_is_no_queue_is_an_error(tmp_path):
    path = tmp_path / "queue.sqlite"
    path.write_text("not a database, and longer than one header would be" * 10)
    with pytest.raises(EscalationError, match="not a database"):
        ReviewQueue(path).open(ticket())
    with pytest.raises(EscalationError, match=str(tmp_path)):
        ReviewQueue(tmp_path).open(ticket())


def test_a_queue_of_a_later_version_is_refused(queue):
    queue.open(ticket())
    database = sqlite3.connect(queue.path)
    database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(EscalationError, match="version 9 is not supported"):
        queue.pending()


def test_the_environment_says_where_the_default_queue_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("GUARDRAIL_REVIEW_QUEUE", raising=False)
    assert default_path() == tmp_path / "guardrail" / "review-queue.sqlite"
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(tmp_path / "q"))
    assert ReviewQueue().path == tmp_path / "q"


def test_messages_of_every_role_survive(queue):
    turns = tuple(Message(role, role) for role in ("system", "user", "assistant", "tool"))
    queue.open(replace(ticket(), messages=turns))
    assert queue.get("t-1").messages == turns


def test_a_ticket_that_somebody_holds_is_for_nobody_else_to_decide_or_hold(queue):
    queue.open(ticket())
    until = utc_in(60)
    held = queue.hold("t-1", "ann", until)
    assert (held.holder, held.held_until) == ("ann", until)
    assert queue.hold("t-1", "bob", utc_in(60)).holder == "ann"
    with pytest.raises(EscalationError, match=r"ann decides on ticket t-1 until"):
        queue.resolve("t-1", approve=True, resolver="bob")
    assert queue.hold("t-1", "ann", utc_in(90)).held_until > until
    assert queue.resolve("t-1", approve=True, resolver="ann").state == "approved"


@pytest.mark.parametrize("who", ["ann", "bob"])
def test_a_ticket_is_free_once_it_is_given_back_or_the_time_has_passed(queue, who):
    queue.open(ticket())
    queue.hold("t-1", who, utc_in(60 if who == "ann" else -1))
    queue.hold("t-1", who, utc_in(-1))
    assert not queue.get("t-1").held_from("carol", utc_now())
    assert queue.hold("t-1", "carol", utc_in(60)).holder == "carol"


def test_what_is_resolved_or_unknown_cannot_be_held(queue):
    queue.open(ticket())
    queue.resolve("t-1", approve=False, resolver="ann")
    assert queue.hold("t-1", "bob", utc_in(60)).holder is None
    with pytest.raises(EscalationError, match="there is no ticket"):
        queue.hold("t-2", "bob", utc_in(60))
