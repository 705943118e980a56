"""What the engine is told about each row: decisions, time limits, scorers, reviews and replies."""

from concurrent.futures import CancelledError
from time import perf_counter
from types import SimpleNamespace

import pytest
from worlds import FINGERPRINT, policies, rule, world

from guardrail.pipeline.evaluator import BatchEvaluator, Row
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.job import Job
from guardrail.pipeline.plugin_calls import PluginCalls
from guardrail.pipeline.request import request
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.manager import Plugins
from guardrail.policy.decide_reply import Observed
from guardrail.policy.loading import load
from guardrail.types import Facts, Message

LOW, HIGH = [0.0], [9.0]
RAW = {"raw": 2.0}
DRIFT = {"id": "drift", "conversation": {"reference": {"mean": 0.0, "sd": 1.0}}}


class Lengths:
    """A plugin that scores a conversation by its length; it cannot score shouting."""

    name = "lengths"

    def __init__(self, asks=None):
        self.asks, self.seen = asks, []

    def score(self, messages):
        self.seen.append(messages)
        if messages[-1].content.isupper():
            raise ValueError("secret")
        return len(messages[-1].content)

    @hookimpl
    def guardrail_scorers(self):
        return [self]

    @hookimpl
    def guardrail_review(self, decision, messages):
        if isinstance(self.asks, BaseException):
            raise self.asks
        return self.asks


@pytest.fixture
def made(tmp_path):
    """Makes an evaluator for rows with these texts."""
    calls = PluginCalls()

    def make(*rules, texts=("Hello",), plugin=None, job=None, timeout_s=1e6, late=None, names=(), facts=None):
        several = plugin if isinstance(plugin, list) else [plugin] if plugin else []
        active = load(policies(world(tmp_path), *rules), FINGERPRINT, Plugins(several))
        rows = [
            Row((Message("user", text),), facts or Facts(), dict(enumerate(names)).get(i))
            for i, text in enumerate(texts)
        ]
        conversations = SimpleNamespace(values=lambda *args: {"drift": 9.0})
        return BatchEvaluator(
            active, rows, job or running(), timeout_s, late or no_late, conversations, calls
        )

    yield make
    calls.close()


def running(cancelled=False, timed_out=False, seconds=0.0):
    """A job that was started so many seconds ago."""
    job = Job(lambda job: None)
    job.started = perf_counter() - seconds
    if cancelled:
        job.cancel(timed_out)
    return job


def no_late(row, decision):
    pytest.fail("a decision was late")


def test_a_row_is_the_exchange_as_it_is_now(made, tmp_path):
    active = load(policies(world(tmp_path), rule()), FINGERPRINT, Plugins())
    exchange = Exchange.of(request("chat", "Hello", conversation="c"), active)
    exchange.retry([Message("user", "other")], frozenset({"p"}))
    assert Row.of(exchange) == Row((Message("user", "other"),), exchange.facts, (None, "c"))
    assert exchange.facts.waived == {"p"}


def test_each_row_is_decided_by_its_own_facts_and_readings(made):
    evaluator = made(rule(threshold=RAW), texts=("a", "b"))
    assert [evaluator.decide(row, found).action for row, found in enumerate((HIGH, LOW))] == [
        "block",
        "allow",
    ]


@pytest.mark.parametrize(
    ("on_timeout", "readings", "action", "status"),
    [
        ("block", LOW, "block", "error"),
        ("block", HIGH, "block", "error"),
        ("escalate", HIGH, "block", "evaluated"),
        ("allow", HIGH, "block", "evaluated"),
        ("allow", LOW, "allow", "error"),
    ],
)
def test_a_decision_that_comes_late_gives_way_unless_it_is_stricter(
    made, on_timeout, readings, action, status
):
    evaluator = made(
        rule(threshold=RAW, on_timeout=on_timeout, timeout_ms=2000), job=running(seconds=3), timeout_s=2.0
    )
    decision = evaluator.decide(0, readings)
    assert (decision.action, decision.status) == (action, status)
    text = "not decided within 2000 ms"
    assert decision.error == (text if status == "error" else None)
    assert (text in decision.warnings) == (status == "evaluated")


def test_a_decision_in_time_stands(made):
    evaluator = made(rule(threshold=RAW, timeout_ms=9000), job=running(seconds=1), timeout_s=9.0)
    decision = evaluator.decide(0, LOW)
    assert (decision.action, decision.status) == ("allow", "evaluated")
    assert not any("not decided within" in text for text in decision.warnings)


def test_after_a_time_out_the_decision_is_told_as_it_is(made):
    found = []
    job = running(cancelled=True, timed_out=True, seconds=3)
    evaluator = made(
        rule(threshold=RAW), job=job, timeout_s=2.0, late=lambda *told: found.append(told), texts=("a", "b")
    )
    with pytest.raises(CancelledError):
        evaluator.decide(1, LOW)
    ((row, decision),) = found
    assert (row, decision.action, decision.status) == (1, "allow", "evaluated")


def test_a_caller_that_left_is_told_nothing(made):
    evaluator = made(rule(threshold=RAW), job=running(cancelled=True))
    with pytest.raises(CancelledError):
        evaluator.decide(0, LOW)


def scored(**keys):
    found = rule(trait="lengths", threshold=3.0, **keys)
    del found["layer"]
    return found


def test_scorers_score_each_row_and_fail_for_their_row_alone(made):
    plugin = Lengths()
    evaluator = made(scored(), texts=("Hello", "Hi", "LOUD"), plugin=plugin)
    assert [messages[0].content for messages in plugin.seen] == ["Hello", "Hi", "LOUD"]
    found = [evaluator.decide(row, []) for row in range(3)]
    assert [decision.action for decision in found] == ["block", "allow", "block"]
    assert [decision.status for decision in found] == ["evaluated", "evaluated", "error"]
    assert [decision.error for decision in found] == [None, None, "scorer `lengths` failed: ValueError"]


def test_scorers_of_policies_that_do_not_apply_are_not_asked(made):
    plugin = Lengths()
    made(scored(when={"tags": ["other"]}), plugin=plugin)
    assert plugin.seen == []


def test_a_plugin_tightens_with_a_note(made):
    evaluator = made(rule(threshold=RAW), plugin=Lengths(asks="block"))
    decision = evaluator.decide(0, LOW)
    assert (decision.action, decision.warnings[-1]) == ("block", "plugin `Lengths` asked for block")


def test_a_plugin_that_fails_to_review_is_an_error_with_its_name(made):
    evaluator = made(rule(threshold=RAW, on_error="escalate"), plugin=Lengths(asks=ValueError("secret")))
    decision = evaluator.decide(0, LOW)
    assert (decision.action, decision.status) == ("escalate", "error")
    assert decision.error == "plugin `Lengths`: guardrail_review failed: ValueError"


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(1), TimeoutError()])
def test_a_plugin_that_fails_to_review_does_not_lift_what_fired(made, error):
    evaluator = made(rule(threshold=RAW, on_error="allow"), plugin=Lengths(asks=error))
    fired, passed = evaluator.decide(0, HIGH), evaluator.decide(0, LOW)
    assert (fired.action, fired.policy, fired.status, fired.fired) == ("block", "p", "error", ("p",))
    assert (passed.action, passed.status) == ("allow", "error")
    assert [len(one.scores) for one in (fired, passed)] == [1, 1]


@pytest.mark.parametrize("first", [True, False])
def test_a_plugin_that_fails_to_review_does_not_silence_another(made, first):
    class Other:
        @hookimpl(tryfirst=first)
        def guardrail_review(self, decision):
            return "block"

    evaluator = made(rule(threshold=RAW, on_error="allow"), plugin=[Lengths(asks=ValueError()), Other()])
    decision = evaluator.decide(0, LOW)
    assert (decision.action, decision.status) == ("block", "error")
    assert "plugin `Other` asked for block" in decision.warnings


@pytest.mark.parametrize(
    ("drifts", "name", "turn"), [(True, "c", True), (True, None, False), (False, "c", False)]
)
def test_the_turn_is_read_only_for_conversations_with_a_name_and_policies_about_them(
    made, drifts, name, turn
):
    about = rule(threshold=RAW)
    if drifts:
        about = {**rule(**DRIFT)}
        del about["threshold"]
    evaluator = made(about, names=(name,))
    assert evaluator.watch(0).turn == turn


def test_alarms_are_looked_up_for_policies_about_conversations(made):
    about = {**rule(**DRIFT)}
    del about["threshold"]
    assert made(about).decide(0, []).action == "block"


def replies(**keys):
    return rule(threshold=RAW, stage="response", **keys)


def test_a_reply_is_decided_on_by_what_was_observed(made):
    evaluator = made(replies())
    assert evaluator.respond(0, Observed(tokens=3, fired=(2,), values=(9.0,))).action == "block"
    assert evaluator.respond(0, Observed(tokens=3, fired=(None,), values=(0.0,))).action == "allow"


def test_a_reply_that_cannot_be_decided_on_follows_on_error(made):
    decision = made(replies(on_error="escalate")).respond(0, Observed(tokens=3))
    assert (decision.action, decision.status, decision.stage) == ("escalate", "error", "response")
    assert "IndexError" in decision.error


def test_policies_about_replies_are_watched_if_they_apply(made):
    rules = replies(when={"tags": ["strict"]})
    assert made(rules).watch(0).modes == ("off",)
    assert made(rules, facts=Facts(tags=frozenset({"strict"}))).watch(0).modes == ("enforce",)
