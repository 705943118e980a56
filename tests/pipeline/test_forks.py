"""A guard that was made before a fork works in the child, or says at once why it does not."""

import json
import os
import signal
import textwrap
import time

import pytest
from tiny import NEVER, policies, policy, write_vectors

from guardrail.audit import read, verify
from guardrail.audit.line_file import LineFile
from guardrail.pipeline.worker import Worker
from guardrail.testing import tiny_model

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

SCRIPT = """
    import json, os, threading, time
    from tiny import TOKENIZER, rewatch, tiny_model
    from guardrail import Guard
    path = {path!r}

    def ask(**options):
        return guard.chat("Hello", temperature=0, max_new_tokens=4, **options)

    def forked(run):
        '''Run this in a child, and wait for its end: 0 if all is well.'''
        if (child := os.fork()) == 0:
            try:
                run()
                os._exit(0)
            except BaseException as error:
                print(repr(error), flush=True)
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    guard = Guard(tiny_model(), TOKENIZER, path, watch_s=0.05)
    {then}
    guard.close()
"""
USED_BEFORE = """
before = ask().text

def run():
    assert ask().text == before
    assert list(guard.stream("Hello", temperature=0, max_new_tokens=4))
    guard.close()

assert [forked(run), forked(run)] == [0, 0]
assert ask().text == before
"""
WATCHED = """
ask()

def run():
    assert ask().decision.action == "allow"
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace("1000000.0", "-1000000.0"))
    end = time.monotonic() + 60
    while ask().decision.action == "allow" and time.monotonic() < end:
        time.sleep(0.05)
    assert ask().decision.action == "block"
    guard.close()

assert forked(run) == 0
"""
WITH_LOCKS_HELD = """
driver = guard._driver
held = [guard.engine.turn.lock, driver.worker._lock, driver.conversations._lock, guard.policies._lock]
holding = threading.Event()

def hold():
    for lock in held:
        lock.acquire()
    holding.set()
    time.sleep(2)
    for lock in held:
        lock.release()

ask()
thread = threading.Thread(target=hold)
thread.start()
holding.wait()

def run():
    assert ask().text
    assert guard.reload()

assert forked(run) == 0
thread.join()
"""
DURING_A_REQUEST = """
from guardrail.errors import GuardClosed

started, found = threading.Event(), []
guard.engine.blocks[0].register_forward_pre_hook(lambda module, args: started.set() or time.sleep(0.02))
rewatch(guard)
thread = threading.Thread(target=lambda: found.append(guard.chat("Hello", temperature=0, max_new_tokens=100)))
thread.start()
started.wait()

def run():
    try:
        ask()
    except GuardClosed as error:
        assert "forked during a request" in str(error)
        guard.close()
    else:
        raise AssertionError("answered")

assert forked(run) == 0
thread.join()
assert found[0].outcome == "answered"
"""


@pytest.mark.parametrize("then", [USED_BEFORE, WATCHED, WITH_LOCKS_HELD, DURING_A_REQUEST])
@pytest.mark.slow
def test_a_guard_after_a_fork(processes, tmp_path, then):
    write_vectors(tmp_path, tiny_model())
    path, log = tmp_path / "policies.json", tmp_path / "audit.jsonl"
    path.write_text(json.dumps(policies(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log)})))
    code, said, errors = processes.run(textwrap.dedent(SCRIPT).format(path=str(path), then=then))
    assert (code, said) == (0, ""), errors
    assert verify(log).ok
    assert {record.outcome for record in read(log)} <= {"answered", "blocked", "error"}


def test_a_thread_that_cannot_start_is_started_by_the_next_request(monkeypatch):
    import threading

    def fails(thread):
        raise RuntimeError("can't start new thread")

    worker = Worker()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        with pytest.raises(RuntimeError, match="start new thread"):
            worker.call(lambda: 1)
    assert worker.call(lambda: 2) == 2
    worker.close()


def test_a_process_that_was_forked_during_a_write_does_not_keep_the_log(tmp_path):
    log = LineFile(tmp_path / "audit.jsonl")
    with log._opened():
        if (child := os.fork()) == 0:
            time.sleep(5)
            os._exit(0)
    start = time.monotonic()
    log.append(lambda prev: b"{}")
    assert time.monotonic() - start < 4
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
