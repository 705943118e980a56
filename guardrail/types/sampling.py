"""How a reply is to be generated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite

from guardrail.errors import PromptError

EXTRAS = ("n", "logprobs", "presence_penalty", "frequency_penalty", "logit_bias", "special_tokens")
"""The options that an engine honours only if it says so."""
MAX_ALTERNATIVES, MAX_REPLIES, MAX_PENALTY, MAX_BIAS = 20, 128, 2.0, 100.0
"""The limits of the OpenAI API."""
ALLOWED = {
    "max_new_tokens": "a whole number from 1",
    "temperature": "a number from 0 (greedy)",
    "top_p": "above 0 and at most 1",
    "top_k": "a whole number from 0 (off)",
    "seed": "a whole number of 64 bits",
    "n": f"between 1 and {MAX_REPLIES}",
    "logprobs": f"between 0 and {MAX_ALTERNATIVES}",
    "presence_penalty": "between -2 and 2",
    "frequency_penalty": "between -2 and 2",
}
"""What each option can be, for messages."""
GREEDY_BELOW = 1e-5
"""Lower temperatures are greedy: logits divided by them would leave the range of float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to generate. None keeps the value of the model's own generation config.

    temperature: 0 is greedy, and so is anything below 1e-5. n: how many replies to one prompt. logprobs: how
    many alternatives to give with the log probability of every token; None gives no log probabilities.
    presence_penalty, frequency_penalty: subtracted from the logit of a token that the reply has already, once
    and for each time. logit_bias: added to the logits of token ids.
    special_tokens: keep them in the text, except those that end a reply.
    """

    max_new_tokens: int = 256
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] | str = ()
    n: int = 1
    logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    special_tokens: bool = False

    def __post_init__(self) -> None:
        checks = {
            "max_new_tokens": _number(self.max_new_tokens, int) and self.max_new_tokens >= 1,
            "temperature": self.temperature is None
            or (_number(self.temperature) and 0 <= self.temperature < float("inf")),
            "top_p": self.top_p is None or (_number(self.top_p) and 0 < self.top_p <= 1),
            "top_k": self.top_k is None or (_number(self.top_k, int) and self.top_k >= 0),
            "seed": self.seed is None or (_number(self.seed, int) and -(2**63) <= self.seed < 2**64),
            "n": _number(self.n, int) and 1 <= self.n <= MAX_REPLIES,
            "logprobs": self.logprobs is None
            or (_number(self.logprobs, int) and 0 <= self.logprobs <= MAX_ALTERNATIVES),
            "presence_penalty": _within(self.presence_penalty, MAX_PENALTY),
            "frequency_penalty": _within(self.frequency_penalty, MAX_PENALTY),
        }
        if bad := [name for name, good in checks.items() if not good]:
            text = f"{bad[0]} cannot be {getattr(self, bad[0])!r}: it is {ALLOWED[bad[0]]}"
            raise PromptError(text, bad[0])
        _check_biases(self.logit_bias)
        if self.temperature is not None and self.temperature < GREEDY_BELOW:
            object.__setattr__(self, "temperature", 0.0)

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end a reply."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def extras(self) -> frozenset[str]:
        """The options in use that not every engine knows."""
        default: Mapping[str, object] = {field.name: field.default for field in fields(self)}
        return frozenset(name for name in EXTRAS if getattr(self, name) != default[name])


def _check_biases(biases: tuple[tuple[int, float], ...]) -> None:
    for token, bias in biases:
        if not (_number(token, int) and _within(bias, MAX_BIAS)):
            text = f"logit_bias of token {token!r} cannot be {bias!r}: it is between -100 and 100"
            raise PromptError(text, "logit_bias")


def _number(value: object, kind: type | tuple[type, ...] = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _within(value: float, limit: float) -> bool:
    return _number(value) and isfinite(value) and abs(value) <= limit
