"""Batches through the driver, with an engine that is a few lines long."""

import math
import threading

import pytest
from worlds import FINGERPRINT, policies, rule, world

from guardrail.engines import Completion, Prompt, Refused, Scored, Token
from guardrail.errors import AuditError, EvaluationError, PromptError, QueueFull
from guardrail.pipeline import chat
from guardrail.pipeline.driver import Driver, _timeout_s
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.request import request
from guardrail.pipeline.stream import ReplyStream
from guardrail.pipeline.worker import Worker
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import load
from guardrail.testing import MemoryQueue
from guardrail.types import Sampling, Timing

RULE = rule(threshold={"raw": 2.0}, message="No.")
SAMPLING = Sampling(max_new_tokens=10)


class Paper:
    """One token for each letter of the last message; an exclamation mark is what policies are about."""

    fingerprint, max_tokens = FINGERPRINT, 100

    def __init__(self):
        self.sizes, self.sampling, self.before, self.ended = [], [], lambda: None, threading.Event()

    def render(self, messages, tools=(), positions=()):
        return Prompt(tuple(map(ord, messages[-1].content)))

    def check(self, prompts, plan, evaluator, emit):
        self.sizes.append(len(prompts))
        self.before()
        readings = [[9.0 if ord("!") in prompt.ids else 0.0] for prompt in prompts]
        decisions = tuple(evaluator.decide(row, found) for row, found in enumerate(readings))
        emit(Scored(decisions, Timing(guard=1.0, prefill=2.0)))
        return decisions

    def reply(self, prompts, plan, evaluator, sampling, emit, stream=False):
        try:
            decisions = self.check(prompts, plan, evaluator, emit)
            self.sampling.append(sampling)
            texts = ["".join(map(chr, prompt.ids)).upper() for prompt in prompts]
            for letter in texts[0] if stream else ():
                emit(Token(letter))
            return [
                Completion(
                    decision=decision, text="" if decision.stops else text, new_tokens=3, steered_passes=0
                )
                for decision, text in zip(decisions, texts, strict=True)
            ]
        finally:
            self.ended.set()


class Trail:
    def __init__(self):
        self.records, self.failing = [], False

    def decided(self, record):
        if self.failing:
            raise AuditError("full")

    def finished(self, record):
        self.records.append(record)


@pytest.fixture
def engine():
    return Paper()


@pytest.fixture
def trail():
    return Trail()


@pytest.fixture
def driver(engine, trail):
    worker = Worker()
    yield Driver(engine, worker, trail, {"memory-queue": MemoryQueue()})
    worker.close()


@pytest.fixture
def exchanges(tmp_path):
    def make(*texts, rules=(RULE,), kind="chat", **keys):
        active = load(policies(world(tmp_path), *rules), FINGERPRINT, Plugins())
        return [Exchange.of(request(kind, text, **keys), active) for text in texts]

    return make


IMAGE = [{"role": "user", "content": [{"type": "image", "url": "x"}]}]


def test_every_row_of_a_batch_gets_its_own_reply(driver, exchanges, engine):
    batch = exchanges("one", "stop!", IMAGE, "two", "stop! again", "three")
    replies = chat.chat(driver, batch, SAMPLING)
    assert [reply.text for reply in replies] == ["ONE", "No.", "No.", "TWO", "No.", "THREE"]
    assert [reply.audit_id for reply in replies] == [exchange.id for exchange in batch]
    assert [reply.decision.status for reply in replies][2] == "not_evaluated"
    assert (engine.sizes, engine.sampling) == ([5], [SAMPLING])
    timing = replies[0].timing
    assert (timing.guard, timing.prefill) == (1.0, 2.0)
    assert 0 < timing.queue < timing.total


def test_a_batch_without_a_prompt_asks_nothing_of_the_engine(driver, exchanges, engine):
    replies = chat.chat(driver, exchanges(IMAGE, IMAGE), SAMPLING)
    assert [reply.text for reply in replies] == ["No.", "No."]
    assert engine.sizes == []
    assert replies[0].timing.queue == 0.0


def test_large_batches_go_in_parts_of_thirty_two(driver, exchanges, engine):
    texts = [f"text {i}" for i in range(70)]
    assert [reply.text for reply in chat.chat(driver, exchanges(*texts), SAMPLING)] == [
        text.upper() for text in texts
    ]
    checks = chat.check(driver, batch := exchanges(*texts, kind="check"))
    assert [check.audit_id for check in checks] == [exchange.id for exchange in batch]
    assert engine.sizes == [32, 32, 6] * 2


def test_a_rephrased_row_goes_into_another_round_alone(driver, exchanges, engine):
    rephrase = rule(threshold={"raw": 2.0}, message="No.", action={"rephrase": {}})
    replies = chat.chat(driver, exchanges("one", "stop!", rules=(rephrase,)), SAMPLING)
    assert [reply.text for reply in replies] == ["ONE", "No."]
    assert [len(reply.earlier) for reply in replies] == [0, 1]
    assert engine.sizes == [2, 1]


@pytest.mark.parametrize(("room", "fits"), [(10, 90), (50, 50), (99, 50), (1, 99)])
def test_replies_get_their_room_but_at_most_half_of_the_context(driver, exchanges, room, fits):
    (kept,) = driver.admit(exchanges("x" * fits), room).prompts
    assert len(kept.ids) == fits
    with pytest.raises(PromptError, match="1 more than fit"):
        driver.admit(exchanges("x" * (fits + 1)), room)


def test_what_cannot_be_read_is_evaluated_without_it_if_policies_allow_it(driver, exchanges):
    allowing = {**RULE, "unsupported_input": "allow"}
    parts = [{"role": "user", "content": [*IMAGE[0]["content"], {"type": "text", "text": "one"}]}]
    (reply,) = chat.chat(driver, exchanges(parts, rules=(allowing,)), SAMPLING)
    assert reply.text == "ONE"
    (warning,) = [text for text in reply.decision.warnings if "evaluated all the same" in text]
    assert warning.endswith("content parts of type image cannot be read")


def broken(error):
    def before():
        raise error

    return before


def test_an_engine_that_breaks_before_the_decision_is_a_block_with_the_reason(
    driver, exchanges, engine, trail
):
    engine.before = broken(OSError("gone"))
    replies = chat.chat(driver, exchanges("one", "two"), SAMPLING)
    assert [reply.text for reply in replies] == ["No.", "No."]
    assert [record.error for record in trail.records] == ["OSError"] * 2
    assert replies[0].timing.queue > 0


def test_an_engine_that_breaks_is_an_error_if_a_policy_fails_open(driver, exchanges, engine):
    engine.before = broken(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        chat.chat(driver, exchanges("one", rules=({**RULE, "on_error": "allow"},)), SAMPLING)


def test_what_the_engine_refuses_reaches_the_caller(driver, exchanges, engine, trail):
    for error, expected in ((PromptError("odd"), PromptError), (Refused(KeyError("x")), KeyError)):
        engine.before = broken(error)
        with pytest.raises(expected):
            chat.chat(driver, exchanges("one"), SAMPLING)
    assert [record.outcome for record in trail.records] == ["error", "error"]


def test_an_engine_that_never_decides_is_an_error(driver, exchanges, engine):
    engine.check = lambda prompts, plan, evaluator, emit: None
    with pytest.raises(EvaluationError, match="without a decision"):
        chat.check(driver, exchanges("one", kind="check"))


def test_a_model_that_is_busy_too_long_is_an_error(driver, exchanges, engine, trail):
    gate = threading.Event()
    driver.worker.patience_s = 0.01
    driver.worker.submit(lambda job: gate.wait()).wait_until_started()
    with pytest.raises(QueueFull, match="within 0 s"):
        chat.chat(driver, exchanges("one"), SAMPLING)
    gate.set()
    driver.worker.call(lambda: None)
    assert engine.sizes == [], "nobody waits for the reply any more"
    assert [record.outcome for record in trail.records] == ["error"]


def test_a_decision_that_is_not_on_record_stops_the_model(driver, exchanges, engine, trail):
    trail.failing = True
    go = threading.Event()
    real = engine.reply

    def reply(*arguments):
        emit = arguments[4]
        return real(*arguments[:4], lambda event: (emit(event), go.wait(5)), *arguments[5:])

    engine.reply = reply
    (exchange,) = exchanges("one", kind="stream")
    with pytest.raises(AuditError):
        next(ReplyStream(driver, exchange, SAMPLING))
    go.set()
    assert engine.ended.wait(5)
    assert [record.outcome for record in trail.records] == ["error"]


@pytest.mark.parametrize(
    ("on_timeout", "text", "outcomes"),
    [("block", "No.", ["blocked", "late"]), ("allow", "ONE", ["answered"])],
)
def test_a_caller_waits_no_longer_than_policies_say_unless_they_fail_open(
    driver, exchanges, engine, trail, on_timeout, text, outcomes
):
    gate = threading.Event()
    # a policy that fails open waits for the model
    engine.before = lambda: gate.wait(0.1 if on_timeout == "allow" else None)
    limited = {**RULE, "timeout_ms": 20, "on_timeout": on_timeout}
    (reply,) = chat.chat(driver, exchanges("one", rules=(limited,)), SAMPLING)
    gate.set()
    driver.worker.call(lambda: None)
    assert (reply.text, reply.decision.error) == (text, "not decided within 20 ms")
    assert [record.outcome for record in trail.records] == outcomes
    assert reply.timing.queue > 0


def test_the_time_limits_of_a_batch_add_up(driver, exchanges, engine):
    gate = threading.Event()
    engine.before = gate.wait
    rules = ({**RULE, "timeout_ms": 60_000}, {**RULE, "id": "q", "timeout_ms": 20})
    replies = chat.chat(driver, exchanges("one", "two", rules=rules), SAMPLING)
    gate.set()
    assert {reply.decision.error for reply in replies} == {"not decided within 40 ms"}


def test_a_request_without_a_limit_adds_the_longest_of_its_batch(exchanges):
    limited = exchanges("one", rules=({**RULE, "timeout_ms": 20},))
    longer = exchanges("two", rules=({**RULE, "timeout_ms": 30},))
    free = exchanges("three", "four", rules=({**RULE, "when": {"tags": ["x"]}},))
    assert _timeout_s([*limited, *free, *longer]) == pytest.approx(0.02 + 0.03 + 2 * 0.03)
    assert _timeout_s(free) == math.inf


def test_a_prompt_that_was_allowed_and_got_no_reply_is_an_error(driver, exchanges):
    (exchange,) = exchanges("one")
    driver.decide(driver.admit([exchange], 1), driver.engine.check)
    with pytest.raises(EvaluationError, match="nothing was generated"):
        driver.answer(exchange, None)


def test_only_answered_turns_of_a_conversation_are_added(driver, exchanges):
    found = []
    driver.conversations.add = lambda *told: found.append(told)
    about = {**rule(id="drift"), "conversation": {"reference": {"mean": 0.0, "sd": 1.0}}}
    del about["threshold"]
    batch = exchanges("one", "stop!", conversation="c", rules=(RULE, about | {"mode": "shadow"}))
    chat.chat(driver, batch, SAMPLING)
    assert found == [(batch[0].policies.plan, (None, "c"), None)]


def test_a_stream_is_one_piece_for_each_event(driver, exchanges):
    (exchange,) = exchanges("one", kind="stream")
    stream = ReplyStream(driver, exchange, SAMPLING)
    assert stream.decision.action == "allow"
    assert list(stream) == ["O", "N", "E"]
    assert (stream.reply.text, stream.reply.new_tokens) == ("ONE", 3)


def test_a_refused_stream_is_one_piece(driver, exchanges):
    (exchange,) = exchanges("stop!", kind="stream")
    stream = ReplyStream(driver, exchange, SAMPLING)
    assert stream.decision.action == "block"
    assert list(stream) == ["No."]
    assert stream.reply.text == "No."
