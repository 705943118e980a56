"""A server on a loopback port, for clients that come with their own libraries."""

import threading
from contextlib import contextmanager

import pytest

from guardrail import Guard
from guardrail.serve.app import create_app
from guardrail.serve.server import Server, bound, url
from guardrail.serve.settings import ServerSettings


@contextmanager
def running(guard, **settings):
    """The base URL of a server around a guard."""
    given = ServerSettings(port=0, **settings)
    listening, ready = bound(given), threading.Event()
    server = Server(create_app(guard, given), ready.set)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    assert ready.wait(30)
    yield url(listening)
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def guard():
    with Guard.from_pretrained("demo") as guard:
        yield guard


@pytest.fixture(scope="session")
def server(guard):
    """Blocks are refusals, as by default."""
    with running(guard) as base:
        yield base
