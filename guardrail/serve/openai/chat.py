"""`/v1/chat/completions`, plain and streaming."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from guardrail.serve.delivery import Pieces
from guardrail.serve.errors import ApiError
from guardrail.serve.openai.events import DONE, EventStream, event, with_errors
from guardrail.serve.openai.shapes import Body, StreamOptions, Usage
from guardrail.serve.service import Service, wants_decision
from guardrail.serve.verdict import GuardrailField, Verdict
from guardrail.types import Messages, Reply

FinishReason: TypeAlias = Literal["stop", "length", "content_filter", "tool_calls"]


class ChatBody(Body):
    """The body of a request."""

    idle: ClassVar = {
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "logit_bias": ({},),
        "modalities": (["text"],),
        "n": (1,),
    }

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    modalities: list[str] | None = None


class ChatMessage(BaseModel):
    """A reply."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    """One reply of a response."""

    index: int
    message: ChatMessage
    logprobs: None = None
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    """A response."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str | None = None
    guardrail: GuardrailField | None = None


class Delta(BaseModel):
    """What a chunk adds to a reply."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None


class ChunkChoice(BaseModel):
    """One reply of a chunk."""

    index: int
    delta: Delta
    logprobs: None = None
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


@dataclass(frozen=True)
class _Chat:
    """One request, understood."""

    service: Service
    body: ChatBody
    options: Mapping[str, Any]
    whole: bool
    """Whether the response shows the whole decision."""
    created: int = field(default_factory=lambda: int(time.time()))

    async def answer(self) -> Response:
        """The whole reply."""
        reply = await self.service.delivery.run(partial(self.service.guard.chat, self.turns, **self.options))
        verdict = Verdict.of(reply)
        self.service.check_blocked(reply, verdict)
        return JSONResponse(self._completion(reply, verdict), headers=verdict.headers)

    async def stream(self) -> Response:
        """The reply in events. The decision is made before the response begins."""
        async with AsyncExitStack() as stack:
            replies = self.service.guard.stream(self.turns, **self.options)
            pieces = await stack.enter_async_context(self.service.delivery.stream(replies))
            if (reply := pieces.refused) is not None:
                self.service.check_blocked(reply, pieces.verdict)
            events = with_errors(self._events(pieces))
            return EventStream(events, pieces.verdict.headers, stack.pop_all())

    @property
    def turns(self) -> Messages:
        """The messages."""
        return self.body.messages

    def _completion(self, reply: Reply, verdict: Verdict) -> dict[str, Any]:
        message = ChatMessage(role="assistant", content=reply.text, refusal=None)
        choice = Choice(index=0, message=message, logprobs=None, finish_reason=_finish(reply))
        completion = ChatCompletion(
            id=_id(verdict),
            object="chat.completion",
            created=self.created,
            model=self.body.model,
            choices=[choice],
            usage=_usage(reply),
            system_fingerprint=self.service.fingerprint,
        )
        if (said := verdict.field(self.whole)) is not None:
            completion.guardrail = said
        return completion.model_dump(exclude_unset=True)

    async def _events(self, pieces: Pieces) -> AsyncGenerator[str]:
        identity = _id(pieces.verdict)
        yield self._event(identity, Delta(role="assistant", content=""))
        async for piece in pieces:
            yield self._event(identity, Delta(content=piece))
        reply = pieces.replies.reply
        assert reply is not None
        verdict = Verdict.of(reply)
        if pieces.answer is not None:
            self.service.check_blocked(reply, verdict)
            yield self._event(identity, Delta(content=pieces.answer))
        yield self._event(identity, Delta(), _finish(reply), verdict.field(self.whole))
        if self._usage_wanted:
            yield self._last(identity, _usage(reply))
        yield DONE

    def _event(
        self,
        identity: str,
        delta: Delta,
        finish: FinishReason | None = None,
        guardrail: GuardrailField | None = None,
    ) -> str:
        choice = ChunkChoice(index=0, delta=delta, logprobs=None, finish_reason=finish)
        chunk = self._chunk(identity, [choice])
        if self._usage_wanted:
            chunk.usage = None
        if guardrail is not None:
            chunk.guardrail = guardrail
        return event(chunk)

    def _last(self, identity: str, usage: Usage) -> str:
        chunk = self._chunk(identity, [])
        chunk.usage = usage
        return event(chunk)

    def _chunk(self, identity: str, choices: list[ChunkChoice]) -> ChatChunk:
        return ChatChunk(
            id=identity,
            object="chat.completion.chunk",
            created=self.created,
            model=self.body.model,
            system_fingerprint=self.service.fingerprint,
            choices=choices,
        )

    @property
    def _usage_wanted(self) -> bool:
        options = self.body.stream_options
        return options is not None and bool(options.include_usage)


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions", response_model=ChatCompletion)
    async def create(body: ChatBody, request: Request) -> Response:
        chat = _understood(service, body, request)
        return await (chat.stream() if body.stream else chat.answer())

    return routes


def _understood(service: Service, body: ChatBody, request: Request) -> _Chat:
    """Raises ApiError for what is asked in vain."""
    service.check_model(body.model)
    service.check_messages(len(body.messages))
    body.check_idle()
    if body.stream_options is not None and not body.stream:
        raise ApiError(
            400,
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    options: dict[str, Any] = body.chosen("temperature", "top_p", "top_k", "seed", "stop")
    limit = service.reply_tokens(body.chosen("max_completion_tokens", "max_tokens"))
    about = service.about(request, body.metadata)
    return _Chat(
        service, body, {**about, **options, "max_new_tokens": limit}, wants_decision(request, body.guardrail)
    )


def _id(verdict: Verdict) -> str:
    return f"chatcmpl-{verdict.audit_id}"


def _finish(reply: Reply) -> FinishReason:
    if reply.final.stops:
        return "content_filter"
    # until replies say why they ended
    return getattr(reply, "finish", "stop")


def _usage(reply: Reply) -> Usage:
    asked, said = getattr(reply, "prompt_tokens", 0), reply.new_tokens
    return Usage(prompt_tokens=asked, completion_tokens=said, total_tokens=asked + said)
