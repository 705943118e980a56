"""A real server on a loopback port, in a thread."""

import threading
from contextlib import contextmanager

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
    try:
        yield url(listening)
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()
