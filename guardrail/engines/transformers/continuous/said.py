"""What a caller gets of one reply while it is generated: text, and the log probabilities of its tokens."""

from __future__ import annotations

from dataclasses import replace

from guardrail.engines import Completion, Emit, Token
from guardrail.engines.transformers.continuous.request import Request
from guardrail.engines.transformers.reply_text import ReplyText
from guardrail.types import TokenLogprob


class Said:
    """One reply, on its caller's thread. `numbers`: which replies to the prompt it is; `emit` gets text."""

    def __init__(self, request: Request, numbers: range, emit: Emit | None) -> None:
        self._request, self._numbers, self._emit = request, numbers, emit
        self._logprobs: list[TokenLogprob] = []
        self._sent = 0
        chooser = request.chooser
        wanted = chooser is not None and (emit is not None or chooser.gives_logprobs)
        self._text = ReplyText(chooser.ending, self._take) if chooser and wanted else None

    def _take(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
        self._logprobs += logprobs
        if self._emit is not None:
            for number in self._numbers:
                self._emit(Token(text, number, logprobs))

    def grow(self) -> None:
        """Hand out what has been generated since."""
        if self._text is None:
            return
        request, count = self._request, len(self._request.tokens)
        for i in range(self._sent, count):
            self._text.put(request.tokens[i], request.logprobs[i])
        self._sent = count

    def completions(self) -> list[Completion]:
        """How the reply ended, for each of its numbers. Hands out the rest of its text."""
        made = self._request.completion()
        self.grow()
        # what is held back of a reply that was stopped is never released
        if self._text is not None and (self._emit is None or (self._sent and made.stopped is None)):
            self._text.end()
        return [replace(made, logprobs=tuple(self._logprobs))] * len(self._numbers)
