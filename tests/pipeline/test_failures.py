"""When things go wrong: "not evaluated" never looks like "allowed", and nothing is lost."""

import json
import os
import signal
import textwrap
import threading
import time

import pytest
from tiny import FIRES, NEVER, TOKENIZER, guard, policies, policy, rewatch, write_vectors

from guardrail.audit import events, read
from guardrail.errors import AuditError, GuardClosed, PromptError, QueueFull, UnsupportedGeneration
from guardrail.pipeline.evaluator import timed_out
from guardrail.plugins.hookspecs import hookimpl
from guardrail.testing import tiny_model
from guardrail.types import Facts

GREEDY = {"temperature": 0, "max_new_tokens": 4}


class Slow:
    """A scorer that takes its time, or raises."""

    name = "slow"

    def __init__(self, seconds=0.0, error=None, gate=None):
        self.seconds, self.error, self.gate = seconds, error, gate

    def score(self, messages):
        if self.gate is not None:
            self.gate.wait()
        time.sleep(self.seconds)
        if self.error:
            raise self.error
        return 1.0


class WithScorer:
    def __init__(self, scorer):
        self.scorer = scorer

    @hookimpl
    def guardrail_scorers(self):
        return [self.scorer]


def scored(scorer, **keys):
    return {"options": {"plugins": [WithScorer(scorer)]}, "rule": policy(trait="slow", threshold=5.0, **keys)}


def test_a_scorer_that_raises_blocks_with_the_reason(tmp_path):
    case = scored(Slow(error=ValueError("no network")), message="No.")
    with guard(tmp_path, case["rule"], options=case["options"]) as made:
        reply = made.chat("Hello")
    assert reply.text == "No."
    assert (reply.decision.status, reply.decision.action) == ("error", "block")
    assert reply.decision.error == "scorer `slow` failed: ValueError"


def test_a_policy_that_fails_open_says_so_at_start_up_and_in_every_decision(tmp_path):
    case = scored(Slow(error=ValueError("no network")), on_error="allow")
    with guard(tmp_path, case["rule"], options=case["options"]) as made:
        assert any("fails open" in warning for warning in made.active.plan.warnings)
        reply = made.chat("Hello", **GREEDY)
    assert (reply.decision.status, reply.decision.action, reply.decision.fail_open) == (
        "error",
        "allow",
        True,
    )
    assert reply.new_tokens > 0


def test_an_error_can_go_to_a_person(tmp_path):
    case = scored(Slow(error=ValueError("no network")), on_error="escalate")
    with guard(tmp_path, case["rule"], options=case["options"]) as made:
        reply = made.chat("Hello")
        assert made.ticket(reply.ticket_id).state == "pending"


def test_the_error_of_a_time_out_says_how_long_it_waited(tmp_path):
    case = scored(Slow())
    with guard(tmp_path, case["rule"], options=case["options"]) as made:
        decision = timed_out(made.active.plan, Facts(), 2.0)
    assert decision.error == "not decided within 2000 ms"


def test_a_decision_that_takes_too_long_is_a_block_at_once_and_the_late_one_is_audited(tmp_path):
    log, gate = tmp_path / "audit.jsonl", threading.Event()
    case = scored(Slow(gate=gate), timeout_ms=50, message="No.")
    with guard(tmp_path, case["rule"], options=case["options"], audit={"jsonl": str(log)}) as made:
        start = time.perf_counter()
        reply = made.chat("Hello")
        assert time.perf_counter() - start < 5
        gate.set()
        made.check("Hello again")
    assert reply.text == "No."
    assert (reply.decision.status, reply.decision.action) == ("error", "block")
    assert "50 ms" in reply.decision.error
    assert next(iter(read(log))).outcome == "blocked"
    outcomes = [event.record.outcome for event in events(log)]
    # the next request may begin before the late one is written
    assert (outcomes[:2], outcomes.count("late")) == ([None, "blocked"], 1)


def test_a_time_out_that_fails_open_still_answers(tmp_path):
    case = scored(Slow(seconds=0.2), timeout_ms=50, on_timeout="allow")
    with guard(tmp_path, case["rule"], options=case["options"]) as made:
        reply = made.chat("Hello", **GREEDY)
    assert (reply.decision.status, reply.decision.action, reply.decision.fail_open) == (
        "error",
        "allow",
        True,
    )
    assert reply.new_tokens > 0


class Reviewer:
    def __init__(self, action):
        self.action = action

    @hookimpl
    def guardrail_review(self, decision, messages):
        if isinstance(self.action, Exception):
            raise self.action
        return self.action


@pytest.mark.parametrize(
    ("threshold", "asks", "expected"),
    [(NEVER, "block", "block"), (FIRES, "allow", "block"), (NEVER, None, "allow")],
)
def test_a_plugin_can_tighten_a_decision_and_never_loosen_it(tmp_path, threshold, asks, expected):
    with guard(tmp_path, policy(threshold=threshold), options={"plugins": [Reviewer(asks)]}) as made:
        decision = made.check("Hello").decision
    assert decision.action == expected


def test_a_plugin_that_raises_is_an_error_and_blocks(tmp_path):
    with guard(
        tmp_path, policy(threshold=NEVER), options={"plugins": [Reviewer(ValueError("oops"))]}
    ) as made:
        decision = made.check("Hello").decision
    assert (decision.status, decision.action) == ("error", "block")
    assert "ValueError" in decision.error
    assert "oops" not in decision.error


def test_a_model_that_breaks_before_the_decision_is_a_block_not_a_pass(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER, message="No.")) as made:
        handle = made.engine.blocks[0].register_forward_pre_hook(lambda m, args: 1 / 0)
        rewatch(made)
        reply = made.chat("Hello")
        handle.remove()
        rewatch(made)
        assert (reply.text, reply.decision.status) == ("No.", "error")
        assert "ZeroDivisionError" in reply.decision.error
        assert made.chat("Hello", **GREEDY).decision.action == "allow"


def test_a_model_that_breaks_after_the_decision_raises_and_the_audit_says_error(tmp_path):
    log = tmp_path / "audit.jsonl"
    with guard(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log)}) as made:
        passes = iter((1, 1, 0))
        made.engine.blocks[3].register_forward_pre_hook(lambda m, args: print(1 / next(passes)))
        rewatch(made)
        with pytest.raises(ZeroDivisionError):
            made.chat("Hello", **GREEDY)
    assert [record.outcome for record in read(log)] == ["error"]


def test_a_stream_of_a_model_that_breaks_raises_and_the_audit_says_why(tmp_path):
    log = tmp_path / "audit.jsonl"
    with guard(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log)}) as made:
        passes = iter((1, 1, 0))
        made.engine.blocks[3].register_forward_pre_hook(lambda m, args: print(1 / next(passes)))
        rewatch(made)
        with pytest.raises(ZeroDivisionError):
            list(made.stream("Hello", **GREEDY))
    (record,) = read(log)
    assert (record.outcome, record.error) == ("error", "ZeroDivisionError")
    assert record.decision.action == "allow"


def test_a_score_that_is_not_a_number_is_an_error(tmp_path):
    import torch

    with guard(tmp_path, policy(threshold=NEVER)) as made:
        with torch.no_grad():
            made.model.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
        rewatch(made)
        decision = made.check("Hello").decision
    assert (decision.status, decision.action) == ("error", "block")
    assert "not finite" in decision.error


def test_a_prompt_that_is_too_long_is_an_error_unless_every_policy_allows_cutting_it(tmp_path):
    long = "many words " * 100
    log = tmp_path / "audit.jsonl"
    with guard(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log)}) as made:
        for ask in (made.chat, made.check, lambda text: next(made.stream(text))):
            with pytest.raises(PromptError, match="more than fit"):
                ask(long)
    assert [(r.outcome, r.decision.status, r.decision.action) for r in read(log)] == [
        ("error", "not_evaluated", "block")
    ] * 3
    with guard(tmp_path, policy(threshold=NEVER, on_truncate="score_tail")) as made:
        reply = made.chat(long, **GREEDY)
    assert any("truncated" in warning for warning in reply.decision.warnings)


@pytest.mark.parametrize(
    ("choice", "status", "action"),
    [
        ("block", "not_evaluated", "block"),
        ("escalate", "not_evaluated", "escalate"),
        ("allow", "evaluated", "allow"),
    ],
)
def test_content_that_is_not_text_is_never_silently_dropped(tmp_path, choice, status, action):
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    with guard(tmp_path, policy(threshold=NEVER, unsupported_input=choice)) as made:
        reply = made.chat([{"role": "user", "content": parts}], **GREEDY)
    assert (reply.decision.status, reply.decision.action) == (status, action)
    assert "image_url" in (reply.decision.error or " ".join(reply.decision.warnings))


def test_text_parts_are_text(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        parts = [{"type": "text", "text": "Hello"}]
        assert (
            made.check([{"role": "user", "content": parts}]).decision.scores
            == made.check("Hello").decision.scores
        )


def test_a_full_queue_is_an_error_that_says_so(tmp_path):
    gate = threading.Event()
    case = scored(Slow(gate=gate))
    with guard(tmp_path, case["rule"], options={**case["options"], "queue_size": 1}) as made:
        waiting = [threading.Thread(target=made.check, args=("Hello",)) for _ in range(2)]
        for thread in waiting:
            thread.start()
            time.sleep(0.1)
        with pytest.raises(QueueFull, match="try again later"):
            made.check("One too many")
        gate.set()
        for thread in waiting:
            thread.join()


def test_closing_the_guard_refuses_a_request_that_waits(tmp_path):
    gate, errors = threading.Event(), []
    case = scored(Slow(gate=gate))

    def wait(made):
        try:
            made.check("Hello")
        except GuardClosed as error:
            errors.append(error)

    with guard(tmp_path, case["rule"], options=case["options"]) as made:
        made._driver.worker.submit(lambda job: gate.wait()).wait_until_started()
        waiting = threading.Thread(target=wait, args=(made,))
        waiting.start()
        while made._driver.worker._queue.empty():
            time.sleep(0.001)
        closing = threading.Thread(target=made.close)
        closing.start()
        waiting.join()
        gate.set()
        closing.join()
    assert len(errors) == 1


def test_an_audit_log_that_cannot_be_written_blocks_or_is_counted(tmp_path):
    class Full:
        name = "full"

        def decided(self, record):
            raise OSError("no space left on device")

        finished = decided

        def close(self):
            pass

    class Plugin:
        @hookimpl
        def guardrail_audit_sinks(self):
            return [Full()]

    options = {"plugins": [Plugin()]}
    with (
        guard(tmp_path, policy(threshold=NEVER), options=options) as made,
        pytest.raises(AuditError, match="OSError"),
    ):
        made.chat("Hello", **GREEDY)
    with guard(tmp_path, policy(threshold=NEVER), options=options, audit={"on_error": "drop"}) as made:
        assert made.chat("Hello", **GREEDY).new_tokens > 0
        assert made.audit.dropped == 2


class FullLater:
    """An audit sink that keeps some outcomes and then has no space left."""

    name = "full-later"

    def __init__(self, space):
        self.space, self.outcomes = space, []

    def decided(self, record):
        pass

    def finished(self, record):
        self.outcomes.append((record.id, record.outcome))
        if len(self.outcomes) > self.space:
            raise OSError("no space left on device")

    def close(self):
        pass

    @hookimpl
    def guardrail_audit_sinks(self):
        return [self]


@pytest.mark.parametrize(("ask", "outcome"), [("check_many", "checked"), ("chat_many", "blocked")])
def test_no_record_gets_a_second_outcome_if_the_batch_fails_after_the_first(tmp_path, ask, outcome):
    sink = FullLater(space=1)
    with (
        guard(tmp_path, policy(), options={"plugins": [sink]}) as made,
        pytest.raises(AuditError, match="OSError"),
    ):
        getattr(made, ask)(["one", "two", "three"])
    assert [found for _, found in sink.outcomes] == [outcome, outcome, "error"]
    assert len({name for name, _ in sink.outcomes}) == 3


class FullLate(FullLater):
    """An audit sink that fails only after the model had time to say something."""

    def decided(self, record):
        time.sleep(0.2)
        raise OSError("no space left on device")


class Taking:
    """A streamer."""

    def __init__(self):
        self.got = []

    def put(self, value):
        self.got.append(value)

    def end(self):
        self.got.append("end")


def test_a_streamer_gets_nothing_if_the_decision_cannot_be_recorded(tmp_path):
    streamer, options = Taking(), {"plugins": [FullLate(space=9)]}
    inputs = dict(TOKENIZER(["hello world"], return_tensors="pt"))
    with guard(tmp_path, policy(threshold=NEVER), options=options) as made, pytest.raises(AuditError):
        made.generate(**inputs, streamer=streamer, max_new_tokens=20, pad_token_id=0)
    assert streamer.got == []


def test_a_streams_refused_audit_record_hands_nothing_out(tmp_path):
    log = tmp_path / "log.jsonl"
    with guard(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log)}) as made:
        log.unlink()
        log.mkdir()
        stream = made.stream("Hello", **GREEDY)
        with pytest.raises(AuditError):
            next(stream)


def test_audit_records_hold_hashes_and_scores_and_more_only_on_request(tmp_path):
    plain, full = tmp_path / "plain.jsonl", tmp_path / "full.jsonl"
    for log, asked in ((plain, {}), (full, {"text": True, "clear": ["conversation", "tags"]})):
        with guard(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log), **asked}) as made:
            for _ in range(2):
                made.chat("a secret question", tags=["beta"], conversation="customer-17", **GREEDY)
    for word in ("secret", "beta", "customer-17"):
        assert word not in plain.read_text()
        assert word in full.read_text()
    record, again = read(plain)
    assert (record.kind, record.outcome) == ("chat", "answered")
    assert (record.conversation, record.tags) == (again.conversation, again.tags)
    assert len(record.prompt_sha256) == 64
    assert record.decision.scores


@pytest.mark.slow
def test_a_kill_between_decision_and_outcome_reads_interrupted(processes, tmp_path):
    model = tiny_model()
    write_vectors(tmp_path, model)
    log = tmp_path / "audit.jsonl"
    rules = policies(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log)})
    script = f"""
        import json, sys
        from tiny import TOKENIZER, tiny_model
        from guardrail import Guard
        guard = Guard(tiny_model(), TOKENIZER, json.loads({json.dumps(rules)!r}))
        stream = guard.stream("Hello", max_new_tokens=450, temperature=0)
        next(stream)
        print("decided", flush=True)
        sys.stdin.read()
    """
    with processes.start(textwrap.dedent(script)) as process:
        assert process.stdout.readline().strip() == "decided"
        os.kill(process.pid, signal.SIGKILL)
        assert process.end()[0] == -signal.SIGKILL
    (record,) = read(log)
    assert (record.outcome, record.decision.action) == ("interrupted", "allow")


def test_unsupported_generation_is_refused_before_anything_runs(tmp_path):
    from tiny import batch

    with guard(tmp_path, policy(threshold=NEVER)) as made:
        with pytest.raises(UnsupportedGeneration):
            made.generate(**batch(1), prompt_lookup_num_tokens=2)
        assert made.check("Hello").decision.action == "allow"


def test_an_action_that_raises_falls_back_to_on_error(tmp_path):
    from typing import ClassVar

    from guardrail.plugins.protocols import NoConfig

    class Broken:
        name, strength = "broken", 35
        Config: ClassVar = NoConfig

        def compile(self, config):
            return "stop"

        def respond(self, config, context):
            raise RuntimeError("broken action")

    class Plugin:
        @hookimpl
        def guardrail_actions(self):
            return [Broken()]

    with guard(tmp_path, policy("broken", message="No."), options={"plugins": [Plugin()]}) as made:
        reply = made.chat("Hello")
    assert reply.text == "No."
    assert any("RuntimeError" in warning for warning in reply.decision.warnings)


def test_reloading_keeps_the_last_good_file_and_requests_under_way_keep_theirs(tmp_path):
    from tiny import TOKENIZER

    from guardrail import Guard

    model = tiny_model()
    write_vectors(tmp_path, model)
    file = tmp_path / "policies.yaml"
    file.write_text(json.dumps(policies(tmp_path, policy(threshold=NEVER))))
    with Guard(model, TOKENIZER, file) as made:
        first = made.active.sha256
        file.write_text(json.dumps(policies(tmp_path, policy(threshold=NEVER, acton="block"))))
        assert not made.reload()
        assert made.active.sha256 == first
        assert "acton" in str(made.policies.error)
        stream = made.stream("Hello", **GREEDY)
        file.write_text(json.dumps(policies(tmp_path, policy(message="No."))))
        assert made.reload()
        assert "".join(stream) != "No."
        assert stream.reply.decision.policy_sha256 == first
        assert made.chat("Hello").text == "No."
