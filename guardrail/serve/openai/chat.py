"""`/v1/chat/completions`, plain and streaming."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from guardrail.serve.delivery import Pieces
from guardrail.serve.openai.chat_shapes import (
    ChatBody,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatMessage,
    ChatToolCall,
    ChunkChoice,
    Delta,
)
from guardrail.serve.openai.events import DONE, EventStream, event, with_errors
from guardrail.serve.openai.shapes import FinishReason, Usage, choices, finish_reason
from guardrail.serve.openai.tools import check_format, offered
from guardrail.serve.service import Service, wants_decision
from guardrail.serve.turns import check_turns
from guardrail.serve.verdict import GuardrailField, Verdict
from guardrail.types import Choice, Reply


@dataclass(frozen=True)
class _Chat:
    """One request, understood. `whole`: whether the response shows the whole decision."""

    service: Service
    body: ChatBody
    options: Mapping[str, Any]
    whole: bool
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def _fingerprint(self) -> str:
        return self.service.fingerprint

    async def answer(self) -> Response:
        """The whole reply."""
        ask = partial(self.service.guard.chat, self.body.messages, **self.options)
        reply = await self.service.delivery.run(ask)
        verdict = Verdict.of(reply)
        self.service.check_blocked(reply, verdict)
        return JSONResponse(self._completion(reply, verdict), headers=verdict.headers)

    async def stream(self) -> Response:
        """The reply in events. The decision is made before the response begins."""
        async with AsyncExitStack() as stack:
            replies = self.service.guard.stream(self.body.messages, **self.options)
            pieces = await stack.enter_async_context(self.service.delivery.stream(replies))
            if (reply := pieces.refused) is not None:
                self.service.check_blocked(reply, pieces.verdict)
            events = with_errors(self._events(pieces))
            return EventStream(events, pieces.verdict.headers, stack.pop_all())

    def _completion(self, reply: Reply, verdict: Verdict) -> dict[str, Any]:
        given = choices(reply, self.body.n)
        completion = ChatCompletion(
            id=_id(verdict),
            object="chat.completion",
            created=self.created,
            model=self.body.model,
            choices=[self._choice(reply, choice, number) for number, choice in enumerate(given)],
            usage=Usage.of([reply]),
            system_fingerprint=self._fingerprint,
        )
        if (said := verdict.field(self.whole)) is not None:
            completion.guardrail = said
        return completion.model_dump(exclude_unset=True)

    def _choice(self, reply: Reply, choice: Choice, number: int) -> ChatChoice:
        message = ChatMessage(role="assistant", content=choice.text, refusal=None)
        if calls := ChatToolCall.of(choice.tool_calls):
            message.content, message.tool_calls = choice.text or None, calls
        logprobs = ChatLogprobs.of(choice.logprobs) if self.body.logprobs else None
        reason = finish_reason(reply, choice)
        return ChatChoice(index=number, message=message, logprobs=logprobs, finish_reason=reason)

    async def _events(self, pieces: Pieces) -> AsyncGenerator[str]:
        identity, numbers = _id(pieces.verdict), range(self.body.n or 1)
        # what is there at once is sent at once: each part that is sent costs as much as making it
        begun = "".join(self._event(identity, n, Delta(role="assistant", content="")) for n in numbers)
        async for piece in pieces:
            logprobs = ChatLogprobs.of(piece.logprobs) if self.body.logprobs else None
            yield begun + self._event(identity, piece.number, Delta(content=piece), logprobs=logprobs)
            begun = ""
        reply = pieces.replies.reply
        assert reply is not None
        if pieces.answer is not None:
            self.service.check_blocked(reply, Verdict.of(reply), pieces.answer)
            begun += "".join(self._event(identity, n, Delta(content=pieces.answer)) for n in numbers)
        yield begun + "".join(self._end(identity, reply)) + DONE

    def _end(self, identity: str, reply: Reply) -> Iterator[str]:
        """The last events: what the tools are asked, why each reply ended, and the usage."""
        verdict = Verdict.of(reply)
        for number, choice in enumerate(choices(reply, self.body.n)):
            if calls := ChatToolCall.of(choice.tool_calls, stream=True):
                yield self._event(identity, number, Delta(tool_calls=calls))
            reason = finish_reason(reply, choice)
            yield self._event(identity, number, Delta(), reason, verdict.field(self.whole))
        if self.body.wants_usage:
            yield self._last(identity, Usage.of([reply]))

    def _event(
        self,
        identity: str,
        number: int,
        delta: Delta,
        finish: FinishReason | None = None,
        guardrail: GuardrailField | None = None,
        logprobs: ChatLogprobs | None = None,
    ) -> str:
        choice = ChunkChoice(index=number, delta=delta, logprobs=logprobs, finish_reason=finish)
        chunk = self._chunk(identity, [choice])
        if self.body.wants_usage:
            chunk.usage = None
        if guardrail is not None:
            chunk.guardrail = guardrail
        return event(chunk)

    def _last(self, identity: str, usage: Usage) -> str:
        chunk = self._chunk(identity, [])
        chunk.usage = usage
        return event(chunk)

    def _chunk(self, identity: str, choices: Sequence[ChunkChoice]) -> ChatChunk:
        return ChatChunk(
            id=identity,
            object="chat.completion.chunk",
            created=self.created,
            model=self.body.model,
            system_fingerprint=self._fingerprint,
            choices=list(choices),
        )


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions", response_model=ChatCompletion)
    async def create(body: ChatBody, request: Request) -> Response:
        chat = _understood(service, body, request)
        return await (chat.stream() if body.stream else chat.answer())

    return routes


def _options(service: Service, body: ChatBody) -> dict[str, Any]:
    options: dict[str, Any] = {**body.sampling, **body.chosen("logprobs", "top_logprobs")}
    if tools := offered(body.tools, body.tool_choice, body.parallel_tool_calls):
        options["tools"] = tools
    options["max_new_tokens"] = service.reply_tokens(body.chosen("max_completion_tokens", "max_tokens"))
    return options


def _understood(service: Service, body: ChatBody, request: Request) -> _Chat:
    """Raises ApiError for what is asked in vain."""
    service.check_right(request, "ask")
    service.check_model(body.model)
    service.check_messages(len(body.messages))
    check_turns(body.messages, "messages")
    service.check_choices(body.n or 1)
    body.check_idle()
    body.check_stream()
    check_format(body.response_format, "response_format")
    options = {**service.about(request, body.metadata), **_options(service, body)}
    return _Chat(service, body, options, wants_decision(request, body.guardrail))


def _id(verdict: Verdict) -> str:
    return f"chatcmpl-{verdict.audit_id}"
