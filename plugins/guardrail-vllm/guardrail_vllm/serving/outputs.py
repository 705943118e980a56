"""vLLM's outputs: what a reply is made of, and how a refusal looks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guardrail.engines import Completion
from guardrail.types import Decision, Finish

FILTERED = "content_filter"
"""Why a reply ended that a policy ended, in the words of the OpenAI API."""
FINISHES: Mapping[str, Finish] = {"length": "length"}
"""Whatever else vLLM says, the reply came to its own end."""


class Replies:
    """The replies to one prompt, put together from vLLM's outputs, whole or in pieces."""

    def __init__(self, parameters: SamplingParams) -> None:
        self.pieces = parameters.output_kind == RequestOutputKind.DELTA
        """Whether outputs hold what is new, and not all that there is."""
        self.texts = defaultdict[int, str](str)
        self._tokens = defaultdict[int, int](int)
        self._finish: dict[int, Finish] = {}

    def take(self, output: RequestOutput) -> None:
        """One more output."""
        for one in output.outputs:
            before, tokens = (self.texts[one.index], self._tokens[one.index]) if self.pieces else ("", 0)
            self.texts[one.index], self._tokens[one.index] = before + one.text, tokens + len(one.token_ids)
            if one.finish_reason is not None:
                self._finish[one.index] = FINISHES.get(one.finish_reason, "stop")

    def keep(self, kept: int | None) -> int:
        """Count so many tokens of a reply that was stopped; how many a worker has ended it with besides."""
        more = 0 if kept is None else max(0, self._tokens[0] - kept)
        self._tokens[0] -= more
        return more

    def completion(self, decision: Decision, steered: int, **more: Any) -> Completion:
        """What they come to. `more`: what was observed of the reply."""
        first, *others = [self._one(number, decision) for number in sorted(self.texts)] or [
            self._one(0, decision)
        ]
        return Completion(
            decision=decision,
            text=first.text,
            new_tokens=first.new_tokens,
            finish=first.finish,
            steered_passes=steered,
            others=tuple(others),
            **more,
        )

    def _one(self, number: int, decision: Decision) -> Completion:
        return Completion(
            decision=decision,
            text=self.texts[number],
            new_tokens=self._tokens[number],
            finish=self._finish.get(number),
            steered_passes=0,
        )


def refusal(name: str, text: str, ids: list[int] | None, parameters: SamplingParams) -> RequestOutput:
    """A whole output in which every reply is this text, which has no tokens."""
    logprobs = [] if parameters.logprobs is not None else None
    replies = [
        CompletionOutput(number, text, [], 0.0, logprobs, finish_reason=FILTERED)  # pyright: ignore
        for number in range(parameters.n)
    ]
    return RequestOutput(name, None, ids, None, replies, finished=True)


def ended(output: RequestOutput, more: str = "", whole: str | None = None) -> RequestOutput:
    """The last output of a reply that a policy stopped: with `more` behind it, or `whole` in its place."""
    for one in output.outputs:
        one.text = one.text + more if whole is None else whole
        one.finish_reason, one.stop_reason = FILTERED, None
    # nobody sees the tokens of a reply that is replaced
    return output if whole is None else without(output, max(len(one.token_ids) for one in output.outputs))


def without(output: RequestOutput, last: int, shown: str = "") -> RequestOutput:
    """An output without the `last` tokens of each reply, and without what is `shown` of them."""
    for one in output.outputs:
        one.text = one.text.removesuffix(shown)
        kept = max(0, len(one.token_ids) - last)
        one.token_ids = list(one.token_ids)[:kept]
        if one.logprobs is not None:
            one.logprobs = one.logprobs[:kept]
    return output
