"""Calls of other services: one limit for everything, and a thread that a forked process does not share."""

import multiprocessing
import os
import socket
import time

import pytest
from endpoints import Response, script, server

from guardrail.endpoint.calls import Connections, NoAnswer


@pytest.fixture
def connections():
    with Connections() as opened:
        yield opened


def test_a_receiver_that_never_reads_is_given_up(connections):
    """What is sent does not fit into the system's buffers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(NoAnswer, match=r"did not answer within 0.2 s"):
            connections.post(url, b" " * 20_000_000, 0.2, 100)
        assert time.monotonic() - started < 2


def test_an_answer_that_is_too_long_is_given_up_and_its_connection_with_it(connections):
    answers = script(Response(pieces=(b"x" * 101,)), Response(pieces=(b"x" * 100,)))
    with server(answers) as (url, _):
        with pytest.raises(NoAnswer, match="answered with more than 100 bytes"):
            connections.post(url, b"{}", 5.0, 100)
        assert connections.post(url, b"{}", 5.0, 100).content == b"x" * 100


def test_what_the_system_says_about_a_connection_is_passed_on(connections):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(NoAnswer, match=r"cannot be reached: .*Connect call failed"):
            connections.post(f"http://127.0.0.1:{unused.getsockname()[1]}", b"{}", 5.0, 100)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_calls_on_its_own_connections(connections):
    with server(script(Response(pieces=(b"x",)))) as (url, seen):
        connections.post(url, b"{}", 5.0, 100)
        child = multiprocessing.get_context("fork").Process(
            target=connections.post, args=(url, b"{}", 5.0, 100)
        )
        child.start()
        child.join(10)
        connections.post(url, b"{}", 5.0, 100)
    assert child.exitcode == 0
    assert len(seen.raw) == 3
