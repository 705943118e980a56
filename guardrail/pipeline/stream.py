"""A reply in pieces. The decision is made and written down before the first piece is handed out.

If a response policy stops the reply, the action's answer is one more piece, after an empty line if something
was handed out before.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import partial

from guardrail.engines import Completion, Event, Token
from guardrail.pipeline.driver import Driver
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.job import Job
from guardrail.pipeline.tool_calls import ToolReader
from guardrail.plugins.protocols import Answer
from guardrail.types import Choice, Decision, Message, Piece, Reply, Sampling, Timing, TokenLogprob

BREAK = "\n\n"
"""Between what was sent of a reply that was stopped and the action's answer."""


class ReplyStream(Iterator[Piece]):
    """Iterate for pieces of text. Closing it early stops the generation. Any thread may read or close it.

    A piece knows its log probabilities, and the reply that it belongs to if there are several.
    """

    def __init__(self, driver: Driver, exchange: Exchange, sampling: Sampling) -> None:
        self._driver, self._exchange, self._sampling = driver, exchange, sampling
        self.reply: Reply | None = None
        """The whole reply, once the last piece was read."""
        self._pieces = self._run()
        self._first: list[Piece] = []
        self._error: Exception | None = None
        self._reading = threading.Lock()

    @property
    def decision(self) -> Decision:
        """The decision; waits for it, and for the first piece. Raises what reading the stream raises."""
        with self._reading:
            if not self._exchange.decisions:
                self._first = [piece for piece in [next(self._pieces, None)] if piece is not None]
        if not self._exchange.decisions:
            raise self._error or CancelledError("the stream was closed before there was a decision")
        return self._exchange.decisions[-1]

    @property
    def audit_id(self) -> str:
        """The id of the audit record."""
        return self._exchange.id

    @property
    def recorded_as(self) -> str | None:
        """The id of the audit record, if there is one yet or will be one."""
        return self._exchange.cancellation.audit_id

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The decisions on the prompt so far; more than one if it was rephrased. Waits for nothing."""
        return tuple(self._exchange.decisions)

    @property
    def lifted(self) -> tuple[str, ...]:
        """The policies that a person has lifted for this prompt. Waits for nothing."""
        return self._exchange.lifted

    @property
    def ticket_id(self) -> str | None:
        """The ticket that belongs to the decisions so far. Waits for nothing."""
        return self._exchange.ticket_id

    @property
    def waits_for(self) -> str | None:
        """The ticket that a person has to decide on before there is a reply."""
        return self._exchange.cancellation.ticket_id

    @property
    def timing(self) -> Timing:
        """The timing so far."""
        return self._exchange.total()

    def __next__(self) -> Piece:
        with self._reading:
            if self._error is not None:
                # the end of an iteration would look like the end of a reply
                raise self._error
            return self._first.pop() if self._first else next(self._pieces)

    def close(self) -> None:
        """Stop reading; the generation stops before its next forward pass."""
        self._exchange.cancellation.cancel()
        # a thread that reads at this moment is woken up, and closes the record itself
        if self._reading.acquire(blocking=False):
            try:
                self._pieces.close()
            finally:
                self._reading.release()

    def _run(self) -> Generator[Piece, None, None]:
        try:
            with self._driver.recorder.closing([self._exchange]):
                while self.reply is None:
                    job = self._decided()
                    if job is not None:
                        yield from self._generated(job)
                    elif self.reply is not None:
                        yield Piece(self.reply.text)
        except Exception as error:
            self._error = error
            raise

    def _decided(self) -> Job[Event, Sequence[Completion]] | None:
        """The job that generates. None: `reply` is there, or another round is due."""
        driver, exchange = self._driver, self._exchange
        admission = driver.admit([exchange], self._sampling.max_new_tokens)
        round = driver.decide(admission, driver.replying(self._sampling, stream=True))
        if round.goes_on:
            return round.job
        if (answer := driver.answer(exchange, None)) is not None:
            self.reply = driver.finish(exchange, answer)
        return None

    def _generated(self, job: Job[Event, Sequence[Completion]]) -> Generator[Piece, None, None]:
        parts = defaultdict[int, _Part](partial(_Part, self._exchange.reader))
        try:
            for event in job.events():
                if isinstance(event, Token) and (piece := parts[event.number].taken(event)) is not None:
                    yield piece
            completion, first = job.result()[0], parts[0]
        except BaseException:
            if not job.succeeded:
                self._left_off(parts[0].sent)
            raise
        self._exchange.completion = completion
        if completion.stopped is not None:
            yield Piece(self._stopped(completion.stopped, first.sent))
            return
        text = first.text or completion.text
        if self._exchange.reader is not None:
            for number, choice in enumerate(self._exchange.choices(text)):
                yield from parts[number].rest(number, choice)
        self.reply = self._driver.finish(self._exchange, Answer(text))

    def _left_off(self, said: str) -> None:
        """The reply ended in the middle. What was handed out of it is a turn of the conversation as well."""
        exchange = self._exchange
        if said.strip():
            told = (*exchange.messages, Message("assistant", said))
            self._driver.conversations.owe(exchange.policies.plan, exchange.request.talk, told)

    def _stopped(self, decision: Decision, sent: str) -> str:
        """The last piece of a reply that was stopped."""
        driver, before = self._driver, f"{sent}{BREAK}" if sent else ""
        complete = driver.completing(self._exchange)
        answer = driver.responder.stopped(self._exchange, decision, sent, complete)
        self.reply = driver.finish(self._exchange, replace(answer, text=before + answer.text))
        return self.reply.text.removeprefix(sent)


class _Part:
    """One reply of a stream: what has come, and how much of it was handed out.

    Nothing is handed out of what may be a call of a tool.
    """

    def __init__(self, reader: ToolReader | None) -> None:
        self._reader, self.text, self.sent = reader, "", ""
        self._logprobs: tuple[TokenLogprob, ...] = ()

    def taken(self, token: Token) -> Piece | None:
        """What can be handed out, now that there is more."""
        self.text += token.text
        self._logprobs += token.logprobs
        free = self._reader.free(self.text) if self._reader else len(self.text)
        return self._piece(token.number, self.text[len(self.sent) : free])

    def rest(self, number: int, choice: Choice) -> Iterator[Piece]:
        """What was held back and turned out to be text."""
        if (piece := self._piece(number, choice.text[len(self.sent) :])) is not None:
            yield piece

    def _piece(self, number: int, text: str) -> Piece | None:
        if not text:
            return None
        self.sent += text
        logprobs, self._logprobs = self._logprobs, ()
        return Piece(text, number, logprobs)
