"""The last tests of the shared server: its worker is killed."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import psutil
import pytest

from guardrail.audit import read
from guardrail.demo.prompts import TOUR

MESSAGES = next(stop.messages for stop in TOUR if stop.expected == "allow")


def worker(server):
    """The process that has the model."""
    found = [
        one for one in psutil.Process(server.process.pid).children(recursive=True) if "Worker" in one.name()
    ]
    assert len(found) == 1, [one.name() for one in found]
    return found[0]


def test_requests_end_by_on_error_and_the_server_says_that_it_is_dead(server):
    stream = server.client.chat.completions.create(
        model="demo", messages=MESSAGES, max_tokens=400, stream=True, extra_body={"ignore_eos": True}
    )
    next(stream)
    process = worker(server)
    process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as thread:
        # a prompt that no worker has read yet
        asked = thread.submit(server.ask, MESSAGES)
        time.sleep(1)
        process.send_signal(signal.SIGKILL)
        headers, reply = asked.result()
    assert reply.choices[0].finish_reason == "content_filter"
    assert (headers["x-guardrail-action"], headers["x-guardrail-status"]) == ("block", "error")
    with pytest.raises(openai.APIError):
        list(stream)
    server.until(lambda: not server.healthy())
    server.until(lambda: server.process.poll() is not None)
    outcomes = [one.outcome for one in read(server.folder / "audit.jsonl")]
    assert outcomes[-2:] == ["error", "blocked"]
