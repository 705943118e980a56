"""Our sampling options as vLLM's, and the log probabilities that it gives as ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from guardrail.engines.transformers.logprobs import LEAST, token_text
from guardrail.errors import PromptError
from guardrail.types import Sampling, TokenLogprob


@dataclass(frozen=True)
class Defaults:
    """What the model's own generation config says about sampling, and which tokens end a reply."""

    config: Any
    tokenizer: Any

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end a reply."""
        eos = self.config.eos_token_id
        given = eos if isinstance(eos, list) else [eos]
        return frozenset(int(one) for one in (*given, self.tokenizer.eos_token_id) if one is not None)

    def ends_with(self, stops: Sequence[str]) -> frozenset[int]:
        """Also the special tokens that are a stop text."""
        names = zip(self.tokenizer.all_special_tokens, self.tokenizer.all_special_ids, strict=True)
        return self.ends | {token for text, token in names if text in stops}

    def samples(self, sampling: Sampling) -> bool:
        """Whether tokens are drawn; otherwise the most probable one is taken."""
        if sampling.temperature is not None:
            return sampling.temperature > 0
        return bool(self.config.do_sample)

    def parameters(self, sampling: Sampling, room: int, number: int = 0, pieces: bool = False) -> Any:
        """vLLM's parameters for reply `number` of at most `room` tokens; `pieces` as they come."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=max(1, min(sampling.max_new_tokens, room)),
            stop=list(sampling.stops),
            stop_token_ids=sorted(self.ends_with(sampling.stops)),
            detokenize=bool(sampling.stops),
            logprobs=sampling.logprobs,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            logit_bias=dict(sampling.logit_bias) or None,
            repetition_penalty=self.config.repetition_penalty or 1.0,
            output_kind=RequestOutputKind.DELTA if pieces else RequestOutputKind.FINAL_ONLY,
            **self._choosing(sampling, number),
        )

    def _choosing(self, sampling: Sampling, number: int) -> dict[str, Any]:
        if not self.samples(sampling):
            return {"temperature": 0.0}
        own = self.config if sampling.temperature is None else None
        seed = None if sampling.seed is None else (sampling.seed + number) % (1 << 63)
        return {
            "temperature": _first(sampling.temperature, getattr(own, "temperature", None), 1.0),
            "top_p": _first(sampling.top_p, self.config.top_p, 1.0),
            "top_k": _first(sampling.top_k, self.config.top_k, 0),
            "seed": seed,
        }


def check(sampling: Sampling, vocabulary: int) -> None:
    """Raises PromptError for a bias on a token that the model does not have."""
    if unknown := [token for token, _ in sampling.logit_bias if not 0 <= token < vocabulary]:
        text = f"`logit_bias` names the token {unknown[0]}, which this model does not have"
        raise PromptError(text, "logit_bias")


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


class LogprobReader:
    """vLLM's log probabilities as ours, with `top` alternatives."""

    def __init__(self, tokenizer: Any, top: int) -> None:
        self._top = top
        self._text = lru_cache(4096)(lambda token: token_text(tokenizer, token))

    def read(self, token: int, found: Mapping[int, Any]) -> TokenLogprob:
        """Those of one token of a reply."""
        best = sorted(found.items(), key=lambda pair: -pair[1].logprob)[: self._top]
        return self._one(token, found[token].logprob, tuple(self._one(i, one.logprob) for i, one in best))

    def _one(self, token: int, value: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        return TokenLogprob(self._text(token), max(value, LEAST), top)
