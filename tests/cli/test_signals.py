"""A command that is ended from outside: the request in the middle has its record, the exit code says why."""

import json
import os
import signal
import textwrap
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tiny import NEVER, policies, policy, write_vectors

from guardrail.audit import read
from guardrail.testing import tiny_model

SCRIPT = """
    import signal, sys, time
    # tests may run under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    from tiny import TOKENIZER, tiny_model
    from guardrail import cli
    from guardrail.cli import models
    model, passes = tiny_model(), []

    def slow(module, args):
        # from the prompt on, which is longer than those that test the model
        if passes or args[0].shape[1] > 40:
            passes.append(time.sleep(0.02))
            print("busy", flush=True)

    model.model.layers[0].register_forward_pre_hook(slow)
    models.load = lambda *_: (model, TOKENIZER)
    sys.argv = ["guardrail", *{arguments}]
    cli.main()
"""
LONG = "Hello " * 20


@pytest.fixture
def log(tmp_path):
    """The audit log of `files`."""
    return tmp_path / "audit.jsonl"


@pytest.fixture
def files(tmp_path, log):
    """The options of a command whose policies never fire."""
    write_vectors(tmp_path, tiny_model())
    file = tmp_path / "policies.json"
    file.write_text(json.dumps(policies(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log)})))
    return ["--model", "tiny", "--policies", str(file)]


def script(*arguments):
    """A command whose model takes its time."""
    return textwrap.dedent(SCRIPT).format(arguments=arguments)


@pytest.mark.parametrize(
    ("number", "verb", "passes"),
    [
        (signal.SIGHUP, ("chat", "--max-new-tokens", "400"), 3),
        (signal.SIGTERM, ("check", LONG), 1),
    ],
)
def test_a_request_that_a_signal_ends_has_its_record(processes, files, log, number, verb, passes):
    with processes.start(script(*verb, *files)) as process:
        process.stdin.write(LONG + "\n")
        process.stdin.flush()
        for _ in range(passes):
            assert process.stdout.readline() == "busy\n"
        os.kill(process.pid, number)
        code, _, errors = process.end()
    assert code == 128 + number, errors
    assert [record.outcome for record in read(log)] == ["cancelled"]


SIGNALS = """
    import os, signal
    # tests may run under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    from guardrail.cli.signals import ended_in_order

    def end(number):
        os.kill(os.getpid(), number)

    def by_a_closed_terminal():
        try:
            end(signal.SIGHUP)
        finally:
            # a second one, and what systemd sends besides, must not cut off what the first one began
            end(signal.SIGHUP)
            end(signal.SIGTERM)
            raise OSError(5, "Input/output error")

    def with_an_exception_swallowed():
        try:
            end(signal.SIGTERM)
        except KeyboardInterrupt:
            return 0

    def from_a_fork():
        if (child := os.fork()) == 0:
            end(signal.SIGTERM)
        return os.waitpid(child, 0)[1]

    def under_nohup():
        end(signal.SIGHUP)
        return 0

    print(*map(ended_in_order, [by_a_closed_terminal, with_an_exception_swallowed, from_a_fork]))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    print(ended_in_order(under_nohup))
"""


def test_a_signal_counts_once_in_its_own_process_unless_it_is_ignored(processes):
    code, said, errors = processes.run(textwrap.dedent(SIGNALS))
    assert (code, said) == (0, f"129 143 {int(signal.SIGTERM)}\n0\n"), errors


@pytest.mark.slow
def test_a_server_goes_on_after_a_hangup_and_finishes_at_sigterm(processes, files, log):
    body = {"model": "tiny", "messages": [{"role": "user", "content": LONG}], "max_tokens": 40}
    with (
        processes.start(script("serve", "--port", "0", "--json", *files)) as process,
        ThreadPoolExecutor() as asking,
    ):
        url = json.loads(process.stdout.readline())["url"]
        asked = asking.submit(httpx.post, url + "/chat/completions", json=body, timeout=30)
        assert process.stdout.readline() == "busy\n"
        os.kill(process.pid, signal.SIGHUP)
        for _ in range(3):
            assert process.stdout.readline() == "busy\n"
        os.kill(process.pid, signal.SIGTERM)
        response = asked.result()
        code, _, errors = process.end()
    assert (code, response.status_code) == (0, 200), errors
    outcomes = {record.id: record.outcome for record in read(log)}
    assert outcomes[response.headers["x-guardrail-audit-id"]] == "answered"
