"""Parts that several endpoints of the OpenAI API share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from guardrail.serve.errors import ApiError
from guardrail.serve.verdict import Wishes
from guardrail.types import Choice, Reply

MAX_STOPS = 64
"""The API takes four. Each is looked for after every token, while others wait for the model."""
Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
"""As the API limits it."""
FinishReason: TypeAlias = Literal["stop", "length", "content_filter", "tool_calls"]


class StreamOptions(BaseModel):
    """The field `stream_options`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """Accepted; nothing is padded here."""


class Usage(BaseModel):
    """Tokens of one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, replies: Sequence[Reply]) -> Usage:
        """The tokens of these replies and their prompts."""
        asked, said = sum(r.prompt_tokens for r in replies), sum(r.new_tokens for r in replies)
        return cls(prompt_tokens=asked, completion_tokens=said, total_tokens=asked + said)


class Body(BaseModel):
    """The body of a request, with fields that every endpoint takes.

    `idle` lists known fields that do nothing here, with the values that ask for nothing: others are refused.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    idle: ClassVar[Mapping[str, tuple[object, ...]]] = {}

    model: str
    metadata: Metadata | None = None
    guardrail: Wishes | None = None
    user: str | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None

    def check_idle(self) -> None:
        """Raises ApiError for a field that asks for something that the server does not do."""
        for name, values in self.idle.items():
            if (value := getattr(self, name)) is not None and value not in values:
                text = f"Unsupported parameter: '{name}' is not supported with this model; leave it out."
                raise ApiError(400, text, code="unsupported_parameter", param=name)

    def chosen(self, *names: str) -> dict[str, Any]:
        """Those of these fields that the request has given."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class GenerationBody(Body):
    """The body of a request for text, with fields that chats and raw text share."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, float] | None = None

    @property
    def sampling(self) -> dict[str, Any]:
        """What the guard is told of how to generate, apart from the length."""
        return self.chosen(
            *("temperature", "top_p", "top_k", "seed", "stop", "n"),
            *("frequency_penalty", "presence_penalty", "logit_bias"),
        )

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check_stream(self) -> None:
        """Raises ApiError for options of a stream without a stream."""
        if self.stream_options is not None and not self.stream:
            text = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
            raise ApiError(400, text, param="stream_options")


def choices(reply: Reply, count: int | None) -> Sequence[Choice]:
    """As many replies as were asked for: an action's answer takes the place of all of them."""
    return reply.choices if len(reply.choices) > 1 else reply.choices * (count or 1)


def finish_reason(reply: Reply, choice: Choice) -> FinishReason:
    """Why one reply ended."""
    if reply.refused:
        return "content_filter"
    return "tool_calls" if choice.tool_calls else choice.finish
