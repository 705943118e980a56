"""One connection over HTTP/1.1: as uvicorn's, but it does not wait for ever for the head of a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from guardrail.serve.errors import ApiError
from guardrail.serve.settings import LINGER_S


class Parser(h11.Connection):
    """Refuses requests that a server in front of this one may read otherwise, and so another one in them."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """What comes next. Raises RemoteProtocolError."""
        event = super().next_event()
        if isinstance(event, h11.Request) and _ambiguous(event):
            raise h11.RemoteProtocolError("two lengths, or another version of HTTP")
        return event


def _ambiguous(request: h11.Request) -> bool:
    """Whether where the request ends is said twice, or its version has other rules for it."""
    names = {name for name, _ in request.headers}
    return {b"content-length", b"transfer-encoding"} <= names or not request.http_version.startswith(b"1.")


class Connection(H11Protocol):
    """Ends a connection if the head of a request has not come after `head_s` seconds (slow loris)."""

    def __init__(self, *arguments: Any, head_s: float, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.conn = Parser(h11.SERVER)
        self._head_s = head_s
        self._patience: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A client has sent something."""
        if self._refused:
            return
        super().data_received(data)
        self._watch()
        if self._refused or self._end is None:
            return
        if self.conn.their_state is not h11.SEND_BODY:
            # all of it has come, so that the connection is as good as before
            self._end.cancel()
            self._end = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._stop()
        self._refused = True
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """A request is answered, whether its client has sent all of it or not."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._linger()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets an answer in the shape of all others."""
        self._refuse(ApiError(400, f"{msg} Send one whole request in HTTP/1.1, its headers below 16 kB."))

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._patience is None:
            self._patience = self.loop.call_later(self._head_s, self._late)

    def _stop(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _late(self) -> None:
        if not self._refused and self.conn.our_state is h11.IDLE:
            text = f"the head of the request did not arrive within {self._head_s:g} s"
            self._refuse(ApiError(408, text, code="request_timeout"))

    def _refuse(self, error: ApiError) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in _answer(error):
                self.transport.write(self.conn.send(event) or b"")
        self._refused = True
        self._linger()

    def _linger(self) -> None:
        """End the connection a moment later: reset with unread data, it would take the answer along."""
        self._end = self.loop.call_later(LINGER_S, self.transport.close)


def _answer(error: ApiError) -> Sequence[h11.Event]:
    body = json.dumps(error.body).encode("ascii")
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("connection", "close"),
    ]
    reason = HTTPStatus(error.status_code).phrase.encode("ascii")
    response = h11.Response(status_code=error.status_code, headers=headers, reason=reason)
    return response, h11.Data(data=body), h11.EndOfMessage()
