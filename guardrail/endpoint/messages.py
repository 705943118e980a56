"""Requests to a chat endpoint and its answers: the part of the OpenAI API that is used here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from guardrail.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """The address of the endpoint, and its limits. Times are in seconds.

    `timeout_s` limits a whole answer, `max_wait_s` each pause between two attempts.
    """

    base_url: str = "https://api.openai.com/v1"
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = 60.0
    attempts: int = 6
    backoff_s: float = 1.0
    max_wait_s: float = 120.0
    requests_per_minute: float | None = None
    concurrency: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One conversation to continue. `top_logprobs` asks for that many alternatives of each token."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    top_logprobs: int | None = None

    def body(self) -> dict[str, Any]:
        """The JSON body of the request."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [message.as_dict() for message in self.messages],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        if self.seed is not None:
            body["seed"] = self.seed
        if self.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """One alternative of a token, and the natural logarithm of its probability."""

    token: str
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswer:
    """The reply. `first` are the alternatives to its first token, None if the endpoint gave none."""

    text: str
    whole: bool
    first: tuple[TokenLogprob, ...] | None = None


class Nonsense(Exception):
    """The endpoint's answer is not a chat completion."""


class _Alternative(BaseModel):
    token: str
    logprob: float


class _Token(BaseModel):
    top_logprobs: list[_Alternative] = []


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Said(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Said
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Completion(BaseModel):
    choices: list[_Choice]


def read_answer(content: bytes) -> ChatAnswer:
    """The first choice of a chat completion. Raises Nonsense."""
    try:
        completion = _Completion.model_validate_json(content)
    except ValidationError as error:
        raise Nonsense(_about(error, content)) from error
    if not completion.choices:
        raise Nonsense("no choices")
    choice = completion.choices[0]
    return ChatAnswer(
        text=choice.message.content or "", whole=choice.finish_reason != "length", first=_first(choice)
    )


def _about(error: ValidationError, content: bytes) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    shown = content[:80].decode("utf-8", "replace")
    return f"{place + ': ' if place else ''}{first['msg']}; it begins with {shown!r}"


def _first(choice: _Choice) -> tuple[TokenLogprob, ...] | None:
    tokens = choice.logprobs.content if choice.logprobs else None
    if not tokens or not tokens[0].top_logprobs:
        return None
    return tuple(TokenLogprob(token=a.token, logprob=a.logprob) for a in tokens[0].top_logprobs)
