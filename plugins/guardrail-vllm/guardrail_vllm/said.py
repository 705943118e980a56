"""What a caller gets of one reply: text as it comes, log probabilities, and how it ended."""

from __future__ import annotations

from dataclasses import replace

from guardrail.engines import Completion, Emit, Evaluator, Token
from guardrail.engines.transformers.reply_text import Ending, ReplyText
from guardrail.errors import EvaluationError, SteeringError
from guardrail.types import Decision, TokenLogprob
from guardrail_vllm.item import Item, observed
from guardrail_vllm.sampling import LogprobReader


class Said:
    """One reply, on its caller's thread. `numbers`: which replies to the prompt it is; `emit` gets text."""

    def __init__(
        self, place: int, numbers: range, ending: Ending, logprobs: LogprobReader | None, emit: Emit | None
    ) -> None:
        self.place, self._numbers, self._ending, self._emit = place, numbers, ending, emit
        self._reader = logprobs
        self._logprobs: list[TokenLogprob] = []
        self._sent = 0
        wanted = emit is not None or logprobs is not None
        self._text = ReplyText(ending, self._take) if wanted else None

    def _take(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
        self._logprobs += logprobs
        if self._emit is not None:
            for number in self._numbers:
                self._emit(Token(text, number, logprobs))

    def grow(self, item: Item) -> None:
        """Hand out what has been generated since."""
        if self._text is None:
            return
        count = len(item.tokens)
        for i in range(self._sent, count):
            token = item.tokens[i]
            found = self._reader.read(token, item.logprobs[i]) if self._reader else None
            self._text.put(token, found)
        self._sent = count

    def completions(self, item: Item, decision: Decision, evaluator: Evaluator) -> list[Completion]:
        """How the reply ended, for each of its numbers. Hands out the rest of its text.

        Raises EvaluationError if it did not end as it should, SteeringError if steering was lost.
        """
        if decision.stops or item.asked.check:
            return [Completion(decision=decision, text="", new_tokens=0, steered_passes=0)] * len(
                self._numbers
            )
        made = self._completion(item, decision, evaluator)
        self.grow(item)
        # what is held back of a reply that was stopped is never released
        if self._text is not None and (self._emit is None or (self._sent and made.stopped is None)):
            self._text.end()
        return [replace(made, logprobs=tuple(self._logprobs))] * len(self._numbers)

    def _completion(self, item: Item, decision: Decision, evaluator: Evaluator) -> Completion:
        ended = item.ended
        for told in (item.decided, ended):
            if told is not None and told.error is not None:
                raise EvaluationError(told.error)
        if not item.tokens:
            raise EvaluationError("vLLM ended the reply before it began: generation was not guarded")
        kept = ended.kept if ended is not None else None
        ids, text, finish = self._ending.reply(item.tokens[:kept])
        passes = ended.passes if ended is not None else 0
        # every token has a pass of its own: that of the token before
        if decision.steering and passes < len(item.tokens):
            raise SteeringError("steering was decided, but not every forward pass was steered")
        found = observed(ended) if ended is not None else None
        return Completion(
            decision=decision,
            text=text,
            new_tokens=len(ids),
            steered_passes=min(passes, max(len(ids), 1)),
            reply_decision=None if found is None else evaluator.respond(item.row, found),
            turn=tuple(ended.turn) if ended is not None and ended.turn is not None else None,
            finish=finish,
        )
