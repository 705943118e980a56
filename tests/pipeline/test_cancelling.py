"""A caller who leaves gets its own exception at once, the generation stops, and the record says so."""

import asyncio
import json
import os
import signal
import textwrap
import threading
import time
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager

import pytest
from tiny import NEVER, guard, policies, policy, rewatch, write_vectors

from guardrail.audit import read
from guardrail.plugins.hookspecs import hookimpl
from guardrail.testing import tiny_model

LONG = {"temperature": 0, "max_new_tokens": 400}
PASS_S = 0.02
"""How long each forward pass takes at least."""


@pytest.fixture
def slow(tmp_path):
    """A guard whose model takes its time, the number of its forward passes, and its audit log."""
    passes, log = [], tmp_path / "audit.jsonl"

    def wait(module, args):
        passes.append(time.perf_counter())
        time.sleep(PASS_S)

    with guard(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log)}) as made:
        made.engine.blocks[0].register_forward_pre_hook(wait)
        rewatch(made)
        yield made, passes, log


async def decoding(passes):
    """Until the reply has been allowed for a while."""
    while len(passes) < 4:
        await asyncio.sleep(0.01)


@asynccontextmanager
async def ending(passes):
    """A time limit that ends while the model replies."""
    async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:

        async def end():
            await decoding(passes)
            limit.reschedule(0)

        group.create_task(end())
        yield


async def in_time(made, passes):
    async with ending(passes):
        await made.achat("Hello", **LONG)


async def in_time_streaming(made, passes):
    async with ending(passes):
        async for _ in made.astream("Hello", **LONG):
            pass


async def cancelled(made, passes):
    task = asyncio.create_task(made.achat("Hello", **LONG))
    await decoding(passes)
    task.cancel()
    await task


async def beside_one_that_fails(made, passes):
    async def fails():
        await decoding(passes)
        raise LookupError

    async with asyncio.TaskGroup() as group:
        group.create_task(made.achat("Hello", **LONG))
        group.create_task(fails())


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (in_time, TimeoutError),
        (in_time_streaming, TimeoutError),
        (cancelled, asyncio.CancelledError),
        (beside_one_that_fails, ExceptionGroup),
    ],
)
def test_a_task_that_is_cancelled_ends_the_generation(slow, call, error):
    made, passes, log = slow
    with pytest.raises(error):
        asyncio.run(call(made, passes))
    left = time.perf_counter()
    assert made.check("Hello again").decision.action == "allow"
    assert sum(start > left for start in passes) <= 2
    assert [(record.outcome, record.decision.action) for record in read(log)] == [
        ("cancelled", "allow"),
        ("checked", "allow"),
    ]


class Waiting:
    """A scorer that waits for its gate."""

    name = "waiting"

    def __init__(self):
        self.gate = threading.Event()

    def score(self, messages):
        self.gate.wait()
        return 1.0

    @hookimpl
    def guardrail_scorers(self):
        return [self]


def test_a_check_that_is_cancelled_returns_before_its_scorer_does(tmp_path):
    scorer = Waiting()

    async def ask(made):
        async with asyncio.timeout(0.1):
            await made.acheck("Hello")

    rule = policy(trait="waiting", threshold=5.0)
    with guard(tmp_path, rule, options={"plugins": [scorer]}) as made:
        with pytest.raises(TimeoutError):
            asyncio.run(ask(made))
        assert not scorer.gate.is_set()
        scorer.gate.set()


def test_an_async_stream_that_is_left_early_ends_the_generation(slow):
    made, _, log = slow

    async def ask():
        async for piece in made.astream("Hello", **LONG):
            assert piece
            break

    asyncio.run(ask())
    assert made.check("Hello again").decision.action == "allow"
    assert [record.outcome for record in read(log)] == ["cancelled", "checked"]


def test_a_stream_can_be_closed_while_another_thread_reads_it(slow):
    made, _, log = slow
    stream, errors = made.stream("Hello", **LONG), []

    def drain():
        try:
            list(stream)
        except CancelledError as error:
            errors.append(error)

    reader = threading.Thread(target=drain)
    reader.start()
    time.sleep(0.2)
    stream.close()
    reader.join(5)
    assert len(errors) == 1
    assert [record.outcome for record in read(log)] == ["cancelled"]
    with pytest.raises(CancelledError):
        next(stream)


def test_a_stream_closed_before_its_decision_has_none_and_one_that_failed_says_why_again(tmp_path):
    from guardrail.errors import PromptError

    with guard(tmp_path, policy(threshold=NEVER)) as made:
        closed, failed = made.stream("Hello"), made.stream("many words " * 100)
        closed.close()
        with pytest.raises(CancelledError, match="closed before"):
            _ = closed.decision
        for _ in range(2):
            with pytest.raises(PromptError, match="more than fit"):
                _ = failed.decision
        with pytest.raises(PromptError, match="more than fit"):
            next(failed)


def test_a_request_that_waits_in_the_queue_can_be_left(slow):
    made, _, log = slow
    first = made.stream("Hello", **LONG)
    next(first)

    async def ask():
        async with asyncio.timeout(0.1):
            await made.achat("Hello", **LONG)

    with pytest.raises(TimeoutError):
        asyncio.run(ask())
    first.close()
    assert made.check("Hello again").decision.action == "allow"
    assert [record.outcome for record in read(log)] == ["cancelled", "cancelled", "checked"]


SCRIPT = """
    import json, os, signal, sys, threading, time
    from tiny import TOKENIZER, rewatch, tiny_model
    from guardrail import Guard
    # a shell that runs the tests in the background has it ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    model = tiny_model()
    guard = Guard(model, TOKENIZER, json.loads({rules!r}))
    passes = []

    def slow(module, args):
        passes.append(time.sleep(0.02))
        if len(passes) == 2:
            print("busy", flush=True)

    model.model.layers[0].register_forward_pre_hook(slow)
    rewatch(guard)
    {then}
"""
CTRL_C = """
    try:
        guard.chat("Hello", max_new_tokens=400, temperature=0)
    except KeyboardInterrupt:
        done = len(passes)
        guard.check("Hello again")
        print("next", len(passes) - done, flush=True)
        raise
"""
AT_THE_END = """
    threading.Thread(target=guard.chat, args=("Hello",), kwargs={"max_new_tokens": 400}, daemon=True).start()
    while len(passes) < 2:
        time.sleep(0.01)
    sys.exit(5)
"""


@pytest.mark.parametrize(
    ("then", "interrupts", "code", "outcomes"),
    [(CTRL_C, True, -signal.SIGINT, ["cancelled", "checked"]), (AT_THE_END, False, 5, ["cancelled"])],
)
@pytest.mark.slow
def test_the_interpreter_ends_cleanly_in_the_middle_of_a_generation(
    processes, tmp_path, then, interrupts, code, outcomes
):
    write_vectors(tmp_path, tiny_model())
    log = tmp_path / "audit.jsonl"
    rules = json.dumps(policies(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log)}))
    script = textwrap.dedent(SCRIPT).format(rules=rules, then=textwrap.dedent(then))
    with processes.start(script) as process:
        assert process.stdout.readline() == "busy\n"
        if interrupts:
            os.kill(process.pid, signal.SIGINT)
        ended, said, errors = process.end()
    assert ended == code, errors
    # the pass that ran, one that may have been about to begin, and the check's own
    assert said in (["next 1\n", "next 2\n", "next 3\n"] if interrupts else [""])
    assert [record.outcome for record in read(log)] == outcomes
