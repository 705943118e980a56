"""What goes in and out of `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from guardrail.serve.openai.logprobs import Logprob
from guardrail.serve.openai.shapes import FinishReason, GenerationBody, Usage
from guardrail.serve.verdict import GuardrailField
from guardrail.types import TokenLogprob, ToolCall


class ChatBody(GenerationBody):
    """The body of a request."""

    idle: ClassVar = {
        "modalities": (["text"],),
        "audio": (),
        "function_call": ("none", "auto"),
        "functions": ([],),
        "prediction": (),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
        "web_search_options": (),
    }

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    function_call: str | dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    prediction: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: dict[str, Any] | None = None


class FunctionCall(BaseModel):
    """What is called. `arguments`: JSON, as text."""

    name: str
    arguments: str


class ChatToolCall(BaseModel):
    """A tool that the model calls. `index`: only in streams."""

    index: int | None = None
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall

    @classmethod
    def of(cls, calls: Sequence[ToolCall], stream: bool = False) -> list[ChatToolCall]:
        """These calls, which come whole in streams too."""
        return [
            cls(
                **({"index": index} if stream else {}),
                id=call.id,
                type="function",
                function=FunctionCall(name=call.name, arguments=call.arguments),
            )
            for index, call in enumerate(calls)
        ]


class ChatLogprobs(BaseModel):
    """Of the tokens of a reply."""

    content: list[Logprob]
    refusal: None

    @classmethod
    def of(cls, tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
        """Those of these tokens."""
        return cls(content=Logprob.of(tokens), refusal=None)


class ChatMessage(BaseModel):
    """A reply."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ChatToolCall] | None = None


class ChatChoice(BaseModel):
    """One reply of a response."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    """A response."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None = None
    guardrail: GuardrailField | None = None


class Delta(BaseModel):
    """What a chunk adds to a reply."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ChatToolCall] | None = None


class ChunkChoice(BaseModel):
    """One reply of a chunk."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None


class ChatChunk(BaseModel):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str | None = None
    usage: Usage | None = None
    guardrail: GuardrailField | None = None
