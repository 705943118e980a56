import multiprocessing
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from guardrail.actions.review_queue import ReviewQueue, default_path
from guardrail.errors import EscalationError
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
