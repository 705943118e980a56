"""Runs the application: a socket that is bound early, and an end in which every request is answered."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from guardrail.errors import ConfigError
from guardrail.serve.connection import Connection
from guardrail.serve.reload import reload_on_hangup
from guardrail.serve.service import Service
from guardrail.serve.settings import ServerSettings

log = logging.getLogger("guardrail.serve")


def bound(settings: ServerSettings) -> socket.socket:
    """The socket to listen on. Raises ConfigError for a port that is taken, or an unknown address."""
    try:
        (family, *_, address), *_ = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        return _listener(family, address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"cannot listen on {settings.host}, port {settings.port}: {reason.lower()}; "
            "choose another with --port or --host"
        ) from error


def _listener(family: int, address: Any) -> socket.socket:
    # only of a socket that names its protocol does asyncio switch Nagle's algorithm off, which holds a
    # response back until the client's delayed acknowledgement: 40 ms for each request
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError:
        found.close()
        raise
    return found


def url(listening: socket.socket) -> str:
    """Where clients find the server."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Server(uvicorn.Server):
    """Stops in two steps: requests are refused and finished first, while `/readyz` says so.

    `listening` is called once clients can connect. A second signal ends the server at once.
    """

    def __init__(self, app: FastAPI, listening: Callable[[], None]) -> None:
        self._service: Service = app.state.service
        connection = partial(Connection, head_s=self._service.settings.send_s)
        config = uvicorn.Config(
            app,
            http=connection,  # pyright: ignore[reportArgumentType]
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            # longer than clients and balancers keep a connection, so that none is closed as a request comes
            timeout_keep_alive=75,
            # for clients that leave what was sent to them unread
            timeout_graceful_shutdown=5,
        )
        super().__init__(config)
        self._listening = listening
        self._ending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; then says so."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        reload_on_hangup(self._service)
        self._listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What a signal does."""
        if self._ending is not None or not self.started:
            super().handle_exit(sig, frame)
            self._cut()
        else:
            self._loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        """Refuse new requests, finish or fail those that run, then stop."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end())

    def _cut(self) -> None:
        self.force_exit = True
        log.warning("ended at once, with %s unfinished", self._running)
        # each request that is cut off would be an error with a traceback
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)

    @property
    def _running(self) -> str:
        count = self._service.delivery.inside
        return f"{count} request{'' if count == 1 else 's'}"

    async def _end(self) -> None:
        grace_s = self._service.settings.grace_s
        self._service.guard.tickets.end_waits()
        if self._service.delivery.inside:
            log.info("finishing %s, at most %g s; Ctrl-C again ends it at once", self._running, grace_s)
        await self._service.delivery.drain(grace_s)
        self.should_exit = True
