"""What a request may say besides its messages, by our names or by those of the OpenAI API."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from guardrail.errors import PromptError
from guardrail.files.problems import suggest
from guardrail.pipeline.messages import Tool
from guardrail.pipeline.request import tags_of
from guardrail.types import Sampling


class RequestOptions(TypedDict, total=False):
    """What a request is about.

    tags: what `when: {tags: ...}` in policies refers to. conversation: the conversation's id, for staged
    rollout and for alarms over its replies; without one, the first user turn stands for it. tools: functions
    that the model may call, as in the OpenAI API; the chat template renders them. client: who asks; nobody
    else can use its tickets. ticket: the ticket that the same messages got before; what a person has said
    about it since then holds for this request.
    """

    tags: Iterable[str]
    conversation: str | None
    tools: Sequence[Tool] | None
    client: str | None
    ticket: str | None


class SamplingOptions(TypedDict, total=False):
    """How to generate. An option that is not given is left to the model's own generation config.

    max_new_tokens: at most this many reply tokens (default 256); also called max_tokens and
    max_completion_tokens. temperature: 0 is greedy. top_p: 0 to 1. top_k: a number of tokens, 0 for all.
    seed: makes sampling repeatable. stop: a text that ends the reply and is cut off it, or several.
    n: several replies to the prompt, which is evaluated once. logprobs: log probabilities of the reply's
    tokens; top_logprobs: with so many alternatives. presence_penalty, frequency_penalty: -2 to 2, lowers the
    logits of tokens that the reply has already. logit_bias: token ids to -100 to 100, added to their logits.
    """

    max_new_tokens: int | None
    max_tokens: int | None
    max_completion_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    stop: Sequence[str] | str | None
    n: int | None
    logprobs: bool | None
    top_logprobs: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[str, float] | Mapping[int, float] | None


class ChatOptions(RequestOptions, SamplingOptions, total=False):
    """All that `chat` and `stream` take besides messages."""


OWN = (
    "max_new_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "stop",
    "n",
    "logprobs",
    "top_logprobs",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
)
SAME = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "stop_strings": "stop",
}
"""Other names of options: of the OpenAI API, and of transformers."""
FOR_GENERATE = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "stop": "stop_strings",
    "n": "num_return_sequences",
    "logit_bias": "sequence_bias",
    "logprobs": "output_scores",
}
"""Names of the OpenAI API, and what the model's own `generate` calls them."""
REFUSED: Mapping[str, tuple[object, str]] = {
    "best_of": (1, "use `n` for several replies"),
    "stream": (False, "use `stream` in place of `chat`"),
    "repetition_penalty": (1, "use `guard.generate`"),
    "min_p": (0, "use `guard.generate`"),
    "tool_choice": ("auto", "the model chooses; leave `tools` out for `none`"),
    "parallel_tool_calls": (True, "the model chooses"),
    "response_format": ({"type": "text"}, "replies are free text"),
    "do_sample": (None, "`temperature` says it: 0 is greedy"),
    "num_beams": (1, "use `guard.generate`"),
    "max_length": (None, "use `max_new_tokens`, which does not count the prompt"),
    "model": (None, "a guard has one model"),
    "user": (None, "use `conversation` for an id, or `tags`"),
    "metadata": (None, "use `tags`"),
    "reasoning_effort": (None, "use `template_arguments` of the guard"),
    "chat_template_kwargs": (None, "use `template_arguments` of the guard"),
}
"""Names that are known and not understood: the value that asks for nothing, and what to use."""


def about(options: Mapping[str, Any]) -> RequestOptions:
    """What a request is about, and nothing else. Raises PromptError for any other option."""
    for name in options.keys() - RequestOptions.__annotations__:
        raise _unknown(name, RequestOptions.__annotations__)
    found = RequestOptions(**options)
    # once, because several requests read it
    return found | {"tags": tags_of(found.get("tags", ()))}


def split(options: Mapping[str, Any]) -> tuple[RequestOptions, Sampling]:
    """What a request is about, and how to generate."""
    own = {name: value for name, value in options.items() if name in RequestOptions.__annotations__}
    rest = {name: value for name, value in options.items() if name not in own}
    return about(own), sampling(rest)


def sampling(options: Mapping[str, Any]) -> Sampling:
    """How to generate, from options by any of their names. None is an option that was not given.

    Raises PromptError for options that are unknown, contradict one another or have a value that cannot be.
    """
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, value in options.items():
        own = SAME.get(name, name)
        if own not in OWN:
            _check_idle(name, value)
        elif value is not None:
            first = names.setdefault(own, name)
            if found.setdefault(own, value) != value:
                raise PromptError(f"`{first}` and `{name}` mean the same, and have different values", name)
    if "stop" in found:
        found["stop"] = _stops(found["stop"], names["stop"])
    if "logit_bias" in found:
        found["logit_bias"] = _biases(found["logit_bias"])
    _take_alternatives(found, names)
    try:
        return Sampling(**found)
    except PromptError as error:
        own, _, rest = str(error).partition(" ")
        raise PromptError(f"{names.get(own, own)} {rest}", names.get(own, own)) from None


def _check_idle(name: str, value: object) -> None:
    idle, instead = REFUSED.get(name, (None, ""))
    if name not in REFUSED:
        raise _unknown(name, [*OWN, *SAME, *RequestOptions.__annotations__])
    if value is not None and value != idle:
        raise PromptError(f"`{name}` is not an option of chats: {instead}", name)


def _unknown(name: str, known: Iterable[str]) -> PromptError:
    return PromptError(f"unknown option `{name}`{suggest(name, known)}", name)


def _stops(value: object, name: str) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) and text for text in texts):
        raise PromptError(f"`{name}` is a text that is not empty, or a list of them", name)
    return tuple(texts)


def _take_alternatives(found: dict[str, Any], names: dict[str, str]) -> None:
    """`logprobs` and `top_logprobs` of the OpenAI API as one number, or none."""
    asked, count = found.pop("logprobs", False), found.pop("top_logprobs", None)
    if not isinstance(asked, bool):
        raise PromptError(
            "`logprobs` is true or false; `top_logprobs` says how many alternatives", "logprobs"
        )
    if count and not asked:
        raise PromptError("`top_logprobs` needs `logprobs: true`", "top_logprobs")
    if asked:
        found["logprobs"], names["logprobs"] = count or 0, "top_logprobs"


def _biases(value: object) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, Mapping):
        raise PromptError("`logit_bias` maps token ids to numbers", "logit_bias")
    # what `int` reads besides digits would be a second name of a token that has another bias
    if wrong := [token for token in value if not re.fullmatch("-?[0-9]{1,19}", str(token))]:
        raise PromptError(f"`logit_bias` maps token ids to numbers, not {str(wrong[0])[:40]!r}", "logit_bias")
    return tuple((int(token), bias) for token, bias in value.items())


def check_generate(arguments: Mapping[str, Any]) -> None:
    """`generate` takes the model's own arguments. Raises PromptError for a name that it has another for."""
    for name, own in FOR_GENERATE.items():
        if arguments.get(name) is not None:
            raise PromptError(f"`generate` takes the model's own arguments: write `{own}` for `{name}`")
