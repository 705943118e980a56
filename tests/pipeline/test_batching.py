"""A guard whose engine batches: many callers at once, each answered as if it were alone."""

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
from tiny import FIRES, NEVER, TEXTS, guard, policy, rewatch

from guardrail.errors import GuardClosed, QueueFull

BATCHING = {"engine": "transformers-batching"}
GREEDY = {"temperature": 0, "max_new_tokens": 6}
STEER = {"steer": {"operator": "add", "coefficient": -3.0, "layers": "all"}}
RULES = (
    policy(STEER, when={"tags": ["steered"]}),
    policy(id="stop", message="No.", when={"tags": ["blocked"]}),
)
KINDS = ("plain", "steered", "blocked")


def asked(made, case):
    """A chat, a stream or a check, in turns."""
    i, kind, text = case
    if i % 4 == 1:
        stream = made.stream(text, tags=[kind], **GREEDY)
        pieces = list(stream)
        assert "".join(pieces) == stream.reply.text
        return stream.reply
    if i % 4 == 3:
        assert made.check(text, tags=[kind]).decision.stops == (kind == "blocked")
    return made.chat(text, tags=[kind], **GREEDY)


def facts(reply):
    return reply.text, reply.outcome, reply.decision.action, reply.steered_passes


def test_sixty_four_threads_get_the_answers_that_each_gets_alone(tmp_path):
    cases = [(i, KINDS[i % 3], TEXTS[i % 5]) for i in range(64)]
    with guard(tmp_path, *RULES) as made:
        expected = {(k, t): facts(made.chat(t, tags=[k], **GREEDY)) for k in KINDS for t in TEXTS[:5]}
    with guard(tmp_path, *RULES, options=BATCHING) as made:
        with ThreadPoolExecutor(64) as pool:
            found = list(pool.map(lambda case: asked(made, case), cases))
        many = made.chat_many(TEXTS[:5], tags=["steered"], **GREEDY)
        checks = made.check_many(TEXTS[:5], tags=["blocked"])
    assert [facts(reply) for reply in found] == [expected[kind, text] for _, kind, text in cases]
    assert [facts(reply) for reply in many] == [expected["steered", text] for text in TEXTS[:5]]
    assert {check.decision.action for check in checks} == {"block"}
    assert {reply.text for reply, case in zip(found, cases, strict=True) if case[1] == "blocked"} == {"No."}


def test_requests_under_way_keep_their_policies_when_others_come_into_force(tmp_path):
    rules = [policy(threshold=NEVER)]
    with guard(tmp_path, *rules, options=BATCHING) as made:
        stream = made.stream("hello", temperature=0, max_new_tokens=200)
        next(stream)
        before = made.active
        made.policies._source["policies"][0]["threshold"] = FIRES
        assert made.reload()
        assert made.active is not before
        assert made.chat("hello", **GREEDY).outcome == "blocked"
        assert stream.decision.action == "allow"
        list(stream)
        assert stream.reply.outcome == "answered"
        assert len(made.engine._passes.readers._readers) <= 2


def test_waiting_for_others_uses_up_no_time_limit(tmp_path):
    slow = policy(threshold=NEVER, timeout_ms=150, on_timeout="block")
    with guard(tmp_path, slow, options=BATCHING) as made:
        made.chat("hello", **GREEDY)
        batches = made.engine.batches
        # a place is given back after the caller has its reply
        while batches.requests:
            time.sleep(0.001)
        with batches._lock:
            # nobody gets in for longer than the limit
            free, batches._room._free = batches._room._free, 0
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(made.chat, text, **GREEDY) for text in TEXTS[:4]]
            while len(batches.requests) < 4:
                time.sleep(0.001)
            time.sleep(0.3)
            with batches._lock:
                batches._room._free = free
                batches._room._move()
            replies = [job.result(10) for job in jobs]
    assert {reply.outcome for reply in replies} == {"answered"}
    assert all(reply.timing.queue >= 250 for reply in replies)


def test_the_queue_is_bounded_and_closing_finishes_what_runs(tmp_path):
    before = set(threading.enumerate())
    with guard(tmp_path, policy(threshold=NEVER), options={**BATCHING, "queue_size": 1}) as made:
        made._driver.worker.threads = 2
        long = {"temperature": 0, "max_new_tokens": 300}
        with ThreadPoolExecutor(3) as pool:
            running = [pool.submit(made.chat, "hello", **long) for _ in range(2)]
            while len(made.engine.batches.requests) < 2:
                time.sleep(0.001)
            waiting = pool.submit(made.chat, "hello", **GREEDY)
            while made._driver.worker.load.waiting == 0:
                time.sleep(0.001)
            with pytest.raises(QueueFull):
                made.chat("hello", **GREEDY)
            made.close()
            assert {job.result(0.1).outcome for job in running} == {"answered"}
            with pytest.raises(GuardClosed):
                waiting.result(0.1)
        assert not made.engine.batches.manager.runs
        # other tests of this process may have guards of their own
        assert set(threading.enumerate()) <= before


def test_a_stream_that_is_closed_stops_its_generation_alone(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER), options=BATCHING) as made:
        expected = made.chat("hello", temperature=0, max_new_tokens=100).text
        other = made.stream("hello", temperature=0, max_new_tokens=100)
        first = next(other)
        stream = made.stream("hello", temperature=0, max_new_tokens=400)
        next(stream)
        stream.close()
        with pytest.raises((CancelledError, StopIteration)):
            next(stream)
        assert first + "".join(other) == expected
        end = time.perf_counter() + 20
        while made.engine.batches.requests and time.perf_counter() < end:
            time.sleep(0.001)
        assert made.engine.batches.requests == []


@pytest.mark.parametrize(("on_error", "outcome"), [("block", "blocked"), ("escalate", "escalated")])
def test_a_pass_that_fails_is_answered_as_policies_say(tmp_path, on_error, outcome):
    def fail(*_):
        raise MemoryError

    with guard(tmp_path, policy(threshold=NEVER, on_error=on_error), options=BATCHING) as made:
        handle = made.engine.blocks[0].register_forward_pre_hook(fail)
        rewatch(made)
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda text: made.chat(text, **GREEDY), TEXTS))
        assert {reply.outcome for reply in replies} == {outcome}
        assert {reply.decision.status for reply in replies} == {"error"}
        handle.remove()
        rewatch(made)
        assert made.chat("hello", **GREEDY).outcome == "answered"


def test_a_changed_model_is_noticed(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER), options=BATCHING) as made:
        assert made.chat("hello", **GREEDY).outcome == "answered"
        made.model.lm_head.weight.data.mul_(2.0)
        reply = made.chat("hello", **GREEDY)
        assert reply.outcome == "blocked"
        assert "model" in reply.decision.error
