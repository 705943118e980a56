"""A reply in pieces. The decision is made and written down before the first piece is handed out.

A reply that a response policy stops ends with one more piece: the action's answer, after an empty line where
something was handed out already.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from guardrail.engines import Completion, Token
from guardrail.pipeline.exchange import ReplyJob, Rounds
from guardrail.pipeline.request import Request
from guardrail.pipeline.respond import Responder
from guardrail.policy.loading import ActivePolicies
from guardrail.types import Decision, Reply, Sampling, Timing

BREAK = "\n\n"
"""Between what was sent of a reply that was stopped and the action's answer."""


class ReplyStream(Iterator[str]):
    """Iterate for pieces of text. Closing it early stops the generation."""

    def __init__(
        self,
        rounds: Rounds,
        loaded: ActivePolicies,
        request: Request,
        sampling: Sampling,
        responder: Responder,
    ) -> None:
        self._rounds, self._loaded, self._request = rounds, loaded, request
        self._sampling, self._responder = sampling, responder
        self.reply: Reply | None = None
        """The whole reply, once the last piece was read."""
        self._pieces = self._run()
        self._first: list[str] = []

    @property
    def decision(self) -> Decision:
        """The decision; waits for it, and for the first piece."""
        if not self._request.decisions:
            self._first = [piece for piece in [next(self._pieces, None)] if piece is not None]
        return self._request.decisions[-1]

    def __next__(self) -> str:
        return self._first.pop() if self._first else next(self._pieces)

    def close(self) -> None:
        """Stop reading; generation stops at its next piece."""
        self._pieces.close()

    def _run(self) -> Generator[str, None, None]:
        while True:
            job, decision, timing = self._decide()
            if job is not None and not decision.stops:
                yield from self._generated(job, timing)
                return
            with self._rounds.closing(self._loaded, [self._request]):
                answer = self._responder.respond(self._request, decision)
            if answer is not None:
                self.reply = self._rounds.answer(self._loaded, self._request, answer, timing)
                yield answer.text
                return

    def _decide(self) -> tuple[ReplyJob | None, Decision, Timing]:
        rounds, loaded, sampling = self._rounds, self._loaded, self._sampling
        admission = rounds.admit(loaded, [self._request], sampling.max_new_tokens)
        submitted = rounds.submit(loaded, admission, sampling, stream=True) if admission.rows else None
        decisions, timing = rounds.decided(loaded, admission, submitted)
        return (submitted[0] if submitted else None), decisions[0], timing

    def _generated(self, job: ReplyJob, timing: Timing) -> Generator[str, None, None]:
        text: list[str] = []
        try:
            for event in job.events():
                if isinstance(event, Token):
                    text.append(event.text)
                    yield event.text
            completion, sent = job.result()[0], "".join(text)
            if completion.reply_decision is not None and completion.reply_decision.stops:
                yield self._stopped(completion, timing, sent)
                return
            self.reply = self._rounds.finish(
                self._loaded, self._request, sent or completion.text, timing, completion
            )
        except GeneratorExit:
            job.cancel()
            self._rounds.ended(self._loaded, self._request, "cancelled")
            raise
        except Exception as error:
            self._rounds.ended(self._loaded, self._request, "error", f"{type(error).__name__}: {error}")
            raise

    def _stopped(self, completion: Completion, timing: Timing, sent: str) -> str:
        """The last piece of a reply that was stopped."""
        assert completion.reply_decision is not None
        before = f"{sent}{BREAK}" if sent else ""
        answer = self._responder.stopped(self._request, completion.reply_decision, sent)
        self.reply = self._rounds.answer(self._loaded, self._request, answer, timing, completion, sent=before)
        return self.reply.text.removeprefix(sent)
