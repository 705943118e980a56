"""What a worker tells about requests, and the socket on which it tells the guard.

A guard in another process decides with its own policies, from the readings; it compares what it finds with
what the worker did.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any, Protocol

import msgspec

from guardrail.types import Decision
from guardrail_vllm.plans import plain
from guardrail_vllm.worker.request import Watched


class Begun(msgspec.Struct, tag=True):
    """The first pass of a request begins. Times are `perf_counter` of the machine."""

    key: str
    at: float


class Decided(msgspec.Struct, tag=True):
    """What the worker did with a prompt; with an `error` it was stopped without a decision.

    `guard_s`: what reading and deciding took in the pass, for all requests in it.
    """

    key: str
    readings: list[float]
    action: str
    steering: list[str]
    error: str | None
    began: float
    at: float
    guard_s: float


class Rechecked(msgspec.Struct, tag=True):
    """What was read again after steering, in the order of the plan's probes, and what followed from it."""

    key: str
    layer: int
    readings: list[float]
    action: str
    steering: list[str]


class Ended(msgspec.Struct, tag=True):
    """A request that was steered or followed is over. `kept`: tokens of a reply that was stopped."""

    key: str
    passes: int
    observed: Any = None
    kept: int | None = None
    turn: list[float] | None = None
    error: str | None = None


Report = Begun | Decided | Rechecked | Ended


class Reports(Protocol):
    """Told what happens to requests, while a pass runs and right after it; `flush` ends a pass."""

    def begun(self, request: Watched) -> None: ...
    def decided(self, request: Watched, guard_s: float) -> None: ...
    def rechecked(self, request: Watched, layer: int, readings: Sequence[float]) -> None: ...
    def ended(self, request: Watched) -> None: ...
    def flush(self) -> None: ...


class Silent:
    """Tells nobody: for workers that do what another one does."""

    def begun(self, request: Watched) -> None:
        """Nothing."""

    def decided(self, request: Watched, guard_s: float) -> None:
        """Nothing."""

    def rechecked(self, request: Watched, layer: int, readings: Sequence[float]) -> None:
        """Nothing."""

    def ended(self, request: Watched) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""


class SocketReports:
    """Sends what happened in a pass as one message to the guard's address."""

    def __init__(self, address: str) -> None:
        import zmq

        self._socket = zmq.Context.instance().socket(zmq.PUSH)
        # a guard that is gone must not keep the worker from ending
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.connect(address)
        self._waiting: list[Report] = []

    def begun(self, request: Watched) -> None:
        """The first pass of a request begins."""
        if request.asked is not None:
            self._waiting.append(Begun(request.asked.key, perf_counter()))

    def decided(self, request: Watched, guard_s: float) -> None:
        """A prompt is decided, or was stopped without a decision."""
        if request.asked is None:
            return
        decision = request.decision or Decision(status="not_evaluated", action="block")
        self._waiting.append(
            Decided(
                key=request.asked.key,
                readings=list(request.readings),
                action=decision.action,
                steering=_policies(decision),
                error=request.error,
                began=request.began,
                at=perf_counter(),
                guard_s=guard_s,
            )
        )

    def rechecked(self, request: Watched, layer: int, readings: Sequence[float]) -> None:
        """A steered prompt was read again."""
        decision = request.decision
        if request.asked is not None and decision is not None:
            found = Rechecked(request.asked.key, layer, list(readings), decision.action, _policies(decision))
            self._waiting.append(found)

    def ended(self, request: Watched) -> None:
        """A request is over."""
        if request.asked is None:
            return
        found = Ended(request.asked.key, request.passes, error=request.error)
        if request.monitor is not None and request.judge is not None:
            followed = request.monitor.followed()[0]
            found.observed, found.kept = plain(request.judge.observed), followed.kept
            found.turn = None if followed.turn is None else list(followed.turn)
            found.passes = max(found.passes, followed.steered_passes)
        self._waiting.append(found)

    def flush(self) -> None:
        """Send what there is."""
        if self._waiting:
            self._socket.send(msgspec.msgpack.encode(self._waiting))
            self._waiting = []


class RoutedReports:
    """Tells each of several guards about its own requests, at the address that they carry."""

    def __init__(self) -> None:
        self._sockets: dict[str, SocketReports] = {}

    def _of(self, request: Watched) -> SocketReports | Silent:
        address = request.asked.to if request.asked is not None else None
        if address is None:
            return Silent()
        if address not in self._sockets:
            self._sockets[address] = SocketReports(address)
        return self._sockets[address]

    def begun(self, request: Watched) -> None:
        """The first pass of a request begins."""
        self._of(request).begun(request)

    def decided(self, request: Watched, guard_s: float) -> None:
        """A prompt is decided, or was stopped without a decision."""
        self._of(request).decided(request, guard_s)

    def rechecked(self, request: Watched, layer: int, readings: Sequence[float]) -> None:
        """A steered prompt was read again."""
        self._of(request).rechecked(request, layer, readings)

    def ended(self, request: Watched) -> None:
        """A request is over."""
        self._of(request).ended(request)

    def flush(self) -> None:
        """Send what there is."""
        for socket in self._sockets.values():
            socket.flush()


def _policies(decision: Decision) -> list[str]:
    return [one.policy for one in decision.steering]
