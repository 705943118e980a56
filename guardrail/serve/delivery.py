"""From the guard's blocking calls to asyncio: threads of its own, a bound, a deadline, an end.

A task that is cancelled, because its client has left, stops its generation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import copy_context
from math import inf
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel

from guardrail.errors import GuardClosed, PromptError, QueueFull
from guardrail.pipeline.cancellation import Cancellation, on
from guardrail.pipeline.tickets import MAX_WAITING
from guardrail.serve.errors import SERVER, ApiError, recorded
from guardrail.serve.verdict import Verdict
from guardrail.types import Piece, Reply

if TYPE_CHECKING:
    from guardrail.pipeline.stream import ReplyStream

T = TypeVar("T")


class WaitedFor(BaseModel):
    """The field `guardrail` of an error: the ticket that nobody has decided on in time."""

    ticket_id: str


class Delivery:
    """Runs at most `room` requests at a time, each no longer than `deadline_s`.

    `waiting` says how many of them wait for a person: these take no room.
    """

    def __init__(self, room: int, deadline_s: float, waiting: Callable[[], int] = lambda: 0) -> None:
        self.room, self.deadline_s, self._waiting = room, deadline_s, waiting
        self.draining = False
        """Whether new requests are refused, because the server will stop."""
        self.inside = 0
        """How many requests there are."""
        self.rejected = 0
        """How many were turned away because there was no room."""
        # a request that waits for a person keeps its thread
        self._pool = ThreadPoolExecutor(room + MAX_WAITING, "guardrail-request")
        self._waits: set[asyncio.Timeout] = set()
        self._end = inf

    async def run(self, work: Callable[[], T]) -> T:
        """The result of a call that blocks. Raises PromptError, and ApiError for all else that it raises."""
        cancellation = Cancellation()
        with self._place(), _named(lambda: cancellation.audit_id):
            async with self.until(self._deadline(), lambda: cancellation.ticket_id):
                return await on(self._pool, work, cancellation)

    @asynccontextmanager
    async def stream(self, replies: ReplyStream) -> AsyncGenerator[Pieces]:
        """The pieces of a reply; the decision is there before the block begins. Raises as `run`."""
        with self._place():
            pieces = Pieces(self, replies, self._deadline())
            self._pool.submit(copy_context().run, pieces.pump)
            try:
                with _named(lambda: replies.recorded_as):
                    await pieces.begin()
                yield pieces
            finally:
                replies.close()

    async def drain(self, grace_s: float) -> None:
        """Refuse what comes, wait for what runs; after `grace_s` seconds, end it with an error."""
        self.draining = True
        self._end = asyncio.get_running_loop().time() + grace_s
        while self.inside:
            if asyncio.get_running_loop().time() >= self._end:
                for wait in self._waits:
                    wait.reschedule(self._end)
            await asyncio.sleep(0.05)

    def close(self) -> None:
        """End the threads, once their calls have returned."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _place(self) -> Generator[None]:
        if self.draining:
            raise GuardClosed("the server is shutting down; ask again in a moment")
        if self.inside - self._waiting() >= self.room:
            self.rejected += 1
            raise QueueFull(f"{self.inside} requests are being answered or waiting; ask again later")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.deadline_s

    @asynccontextmanager
    async def until(self, deadline: float, ticket: Callable[[], str | None]) -> AsyncGenerator[None]:
        """Raises ApiError if what is inside has not ended at the deadline, or when the server ends.

        `ticket` is the one that it waits for.
        """
        try:
            async with asyncio.timeout_at(min(deadline, self._end)) as wait:
                self._waits.add(wait)
                try:
                    yield
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            raise self._late(deadline, ticket()) from None

    def _late(self, deadline: float, ticket_id: str | None) -> Exception:
        # not by the clock: timers may be a moment early (uvloop's are)
        if deadline <= self._end:
            if ticket_id is not None:
                return self._undecided(ticket_id)
            text = f"the request was not answered within {self.deadline_s:g} s; ask for fewer tokens"
            return ApiError(504, text, type=SERVER, code="deadline_exceeded")
        return GuardClosed("the server has shut down before the reply was complete; ask again")

    def _undecided(self, ticket_id: str) -> ApiError:
        text = (
            f"no person decided on ticket {ticket_id} within {self.deadline_s:g} s; "
            f"send the same request later, with the header `x-guardrail-ticket: {ticket_id}`"
        )
        headers, field = {"x-guardrail-ticket-id": ticket_id}, WaitedFor(ticket_id=ticket_id)
        return ApiError(504, text, type=SERVER, code="deadline_exceeded", headers=headers, guardrail=field)


@contextmanager
def _named(audit_id: Callable[[], str | None]) -> Generator[None]:
    """Errors say which audit record is theirs. What is wrong with a prompt, routes say themselves."""
    try:
        yield
    except PromptError:
        raise
    except Exception as error:
        raise recorded(error, audit_id()) from error


class Pieces(AsyncIterator[Piece]):
    """What the model says, piece by piece, pumped from a thread.

    No more pieces wait than the reply may have tokens, and no model waits for a slow reader.
    """

    def __init__(self, delivery: Delivery, replies: ReplyStream, deadline: float) -> None:
        self.replies = replies
        self.verdict: Verdict
        """The decision before the first piece; there once the block of `Delivery.stream` begins."""
        self.refused: Reply | None = None
        """The reply of an action in the model's place, if the prompt was stopped."""
        self.answer: str | None = None
        """At the end: what an action says in the model's place, or after the model was stopped."""
        self._delivery, self._deadline = delivery, deadline
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()
        self._first: list[Piece | BaseException | None] = []

    def pump(self) -> None:
        """Read the reply to its end (on a thread of the pool)."""
        end: BaseException | None = None
        try:
            for piece in self.replies:
                self._decided()
                if self.replies.reply is None:
                    self._put(piece)
                else:
                    self.answer = piece
            self._decided()
        except BaseException as error:
            end = error
        self._put(end)

    def _decided(self) -> None:
        if hasattr(self, "verdict"):
            return
        # on this thread, which has read no further than to the first piece
        self.verdict, self.refused = Verdict.begun(self.replies), self.replies.reply

    def _put(self, item: Piece | BaseException | None) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def begin(self) -> None:
        """Wait for the decision and the first piece. Raises what reading the reply raises."""
        item = await self._next()
        if isinstance(item, BaseException):
            raise item
        self._first = [item]

    async def _next(self) -> Piece | BaseException | None:
        if not self._queue.empty():
            return self._queue.get_nowait()
        async with self._delivery.until(self._deadline, lambda: self.replies.waits_for):
            return await self._queue.get()

    async def __anext__(self) -> Piece:
        item = self._first.pop() if self._first else await self._next()
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, BaseException):
            raise item
        return item
