"""What a time limit bounds: how long a caller waits, and how long a scorer may hold up the model."""

import threading
import time

import pytest
from tiny import FIRES, NEVER, guard, policy, rewatch

from guardrail.audit import read
from guardrail.plugins.hookspecs import hookimpl

GREEDY = {"temperature": 0, "max_new_tokens": 4}


class Hanging:
    """A scorer that hangs until its gate opens."""

    name = "hanging"

    def __init__(self):
        self.gate = threading.Event()
        self.asked = 0

    def score(self, messages):
        self.asked += 1
        self.gate.wait()
        return 1.0

    @hookimpl
    def guardrail_scorers(self):
        return [self]


class HangingReview(Hanging):
    """A review that hangs until its gate opens."""

    guardrail_scorers = None

    @hookimpl
    def guardrail_review(self, messages):
        return "block" if self.score(messages) else None


@pytest.fixture
def review():
    made = HangingReview()
    yield made
    made.gate.set()


@pytest.fixture
def scorer():
    made = Hanging()
    yield made
    made.gate.set()


def limited(**keys):
    return policy(id="limited", trait="hanging", threshold=5.0, timeout_ms=100, message="No.", **keys)


@pytest.mark.parametrize(
    ("keys", "action"),
    [
        ({"on_timeout": "allow"}, "allow"),
        ({"on_timeout": "allow", "on_error": "block"}, "allow"),
        ({"on_timeout": "block", "on_error": "allow"}, "block"),
        ({}, "block"),
    ],
)
@pytest.mark.parametrize("ask", ["chat", "check"])
def test_a_scorer_that_hangs_holds_nobody_up(tmp_path, scorer, keys, action, ask):
    with guard(tmp_path, limited(**keys), options={"plugins": [scorer]}) as made:
        start = time.perf_counter()
        for _ in range(3):
            options = GREEDY if ask == "chat" else {}
            found = getattr(made, ask)("Hello", **options)
            assert (found.decision.status, found.decision.action) == ("error", action)
        assert time.perf_counter() - start < 10
        assert scorer.asked == 1


@pytest.mark.parametrize(("keys", "action"), [({"on_timeout": "allow"}, "allow"), ({}, "block")])
def test_a_review_that_hangs_costs_one_time_limit_and_then_little(tmp_path, review, keys, action):
    rule = policy(threshold=NEVER, timeout_ms=1000, **keys)
    with guard(tmp_path, rule, options={"plugins": [review]}) as made:
        took = []
        for _ in range(4):
            start = time.perf_counter()
            decision = made.check("Hello").decision
            took.append(time.perf_counter() - start)
            assert (decision.status, decision.action) == ("error", action)
        assert "review" in decision.error
        assert took[0] >= 1 > min(took[1:])
        assert review.asked == 1
        review.gate.set()
        while made.check("Hello").decision.status != "evaluated":
            time.sleep(0.01)
        assert made.check("Hello").decision.action == "block"


def test_without_any_policy_a_review_has_a_time_limit_all_the_same(tmp_path, review, monkeypatch):
    monkeypatch.setattr("guardrail.pipeline.evaluator.PATIENCE_S", 0.05)
    with guard(tmp_path, options={"plugins": [review]}, allow_empty=True) as made:
        decision = made.check("Hello").decision
    assert (decision.status, decision.action) == ("error", "allow")


def test_a_policy_that_fired_blocks_though_a_scorer_of_another_hangs(tmp_path, scorer):
    with guard(tmp_path, policy(), limited(on_timeout="allow"), options={"plugins": [scorer]}) as made:
        assert made.chat("Hello").decision.action == "block"


def test_a_hanging_scorer_of_a_shadow_policy_costs_no_decision(tmp_path, scorer):
    rule, options = limited(mode="shadow"), {"plugins": [scorer]}
    with guard(tmp_path, rule, options=options, allow_empty=True) as made:
        start = time.perf_counter()
        decision = made.chat("Hello", **GREEDY).decision
        assert time.perf_counter() - start < 10
    assert (decision.status, decision.action) == ("error", "allow")


def test_a_check_that_fails_open_does_not_wait_for_the_model(tmp_path):
    gate, rule = threading.Event(), policy(threshold=FIRES, timeout_ms=50, on_timeout="allow")
    with guard(tmp_path, rule, audit={"jsonl": str(tmp_path / "log.jsonl")}) as made:
        made.engine.blocks[0].register_forward_pre_hook(lambda module, args: gate.wait() and None)
        rewatch(made)
        decision = made.check("Hello").decision
        assert (decision.status, decision.action) == ("error", "allow")
        gate.set()
    assert [record.outcome for record in read(tmp_path / "log.jsonl")] == ["checked"]


def test_conversations_that_are_in_time_alone_are_in_time_together(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER, timeout_ms=300)) as made:
        # a batch takes as long as its conversations one after another
        made.engine.blocks[0].register_forward_pre_hook(lambda m, args: time.sleep(0.1 * len(args[0])))
        rewatch(made)
        decisions = [check.decision for check in made.check_many(["Hello"] * 8)]
    assert [decision.status for decision in decisions] == ["evaluated"] * 8


def test_a_scorer_cannot_call_the_guard_that_asks_it(tmp_path):
    class Calls:
        name = "hanging"

        def score(self, messages):
            return made.check("Hello").decision.scores[0].score

        @hookimpl
        def guardrail_scorers(self):
            return [self]

    with guard(tmp_path, limited(), options={"plugins": [Calls()]}) as made:
        assert "called from inside" in made.check("Hello").decision.error
