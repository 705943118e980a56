"""`/v1/responses`, plain and streaming. Nothing is stored: a conversation comes whole with every request."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from guardrail.serve.delivery import Pieces
from guardrail.serve.errors import explained
from guardrail.serve.openai.events import EventStream
from guardrail.serve.openai.logprobs import Logprob
from guardrail.serve.openai.response_events import ResponseEvents
from guardrail.serve.openai.response_input import Input
from guardrail.serve.openai.response_shapes import (
    CallItem,
    Failure,
    Incomplete,
    Item,
    MessageItem,
    RefusalPart,
    ResponseBody,
    ResponseObject,
    ResponseUsage,
    TextPart,
)
from guardrail.serve.openai.tools import offered
from guardrail.serve.service import Service, wants_decision
from guardrail.serve.verdict import Verdict
from guardrail.types import Reply, ToolCall


@dataclass(frozen=True)
class _Responding:
    """One request, understood. `whole`: whether the response shows the whole decision."""

    service: Service
    body: ResponseBody
    input: Input
    options: Mapping[str, Any]
    whole: bool
    created: int = field(default_factory=lambda: int(time.time()))

    async def answer(self) -> Response:
        """The whole response."""
        ask = partial(self.service.guard.chat, self.input.turns, **self.options)
        with self.input.named():
            reply = await self.service.delivery.run(ask)
        verdict = Verdict.of(reply)
        self.service.check_blocked(reply, verdict)
        response = self._ended(reply, verdict, _items(reply, verdict), cut=False)
        return JSONResponse(response.data(), headers=verdict.headers)

    async def stream(self) -> Response:
        """The response in events. The decision is made before the first of them."""
        async with AsyncExitStack() as stack:
            with self.input.named():
                replies = self.service.guard.stream(self.input.turns, **self.options)
                pieces = await stack.enter_async_context(self.service.delivery.stream(replies))
            if (reply := pieces.refused) is not None:
                self.service.check_blocked(reply, pieces.verdict)
            events = self._events(pieces)
            return EventStream(events, pieces.verdict.headers, stack.pop_all())

    async def _events(self, pieces: Pieces) -> AsyncGenerator[str]:
        events, verdict = ResponseEvents(_message_id(pieces.verdict)), pieces.verdict
        yield events.state("created", self._begun(verdict))
        yield events.state("in_progress", self._begun(verdict))
        try:
            async for text in self._said(pieces, events):
                yield text
        except Exception as error:
            # the response has begun: its last events say how it failed
            shown = explained(error)
            for text in events.end("incomplete"):
                yield text
            failed = self._begun(verdict)
            failed.status, failed.output = "failed", events.items
            yield events.error(shown.code, shown.message, shown.param)
            failed.error = Failure(code=shown.code or "server_error", message=shown.message)
            yield events.state("failed", failed)

    async def _said(self, pieces: Pieces, events: ResponseEvents) -> AsyncGenerator[str]:
        async for piece in pieces:
            for text in events.text(piece, Logprob.of(piece.logprobs)):
                yield text
        reply = pieces.replies.reply
        assert reply is not None
        verdict, cut = Verdict.of(reply), bool(events.items)
        if reply.refused:
            self.service.check_blocked(reply, verdict, pieces.answer)
            for text in events.refusal((pieces.answer or "").lstrip()):
                yield text
        elif pieces.answer is not None or not (events.items or reply.tool_calls):
            # another model or a person has answered; or nothing was said, and that is a message too
            for text in events.text(pieces.answer or "", []):
                yield text
        incomplete = reply.finish == "length" or (cut and reply.refused)
        for text in events.end("incomplete" if incomplete else "completed"):
            yield text
        for call in reply.tool_calls:
            for text in events.call(_call(call)):
                yield text
        ended = self._ended(reply, verdict, events.items, cut)
        yield events.state(ended.status, ended)

    def _begun(self, verdict: Verdict) -> ResponseObject:
        body = self.body
        return ResponseObject(
            id=f"resp_{verdict.audit_id}",
            created_at=self.created,
            status="in_progress",
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            metadata=body.metadata or {},
            model=body.model,
            temperature=body.temperature,
            tool_choice="none" if body.tool_choice == "none" else "auto",
            tools=body.tools or [],
            top_logprobs=body.top_logprobs or 0,
            top_p=body.top_p,
            user=body.user,
        )

    def _ended(self, reply: Reply, verdict: Verdict, items: list[Item], cut: bool) -> ResponseObject:
        """`cut`: whether the reply was stopped after a part of it had been sent."""
        response = self._begun(verdict)
        response.output, response.usage = items, _usage(reply)
        response.status, response.guardrail = "completed", verdict.field(self.whole)
        if reply.refused:
            response.incomplete_details = Incomplete(reason="content_filter") if cut else None
        elif reply.finish == "length":
            response.incomplete_details = Incomplete(reason="max_output_tokens")
        if response.incomplete_details is not None:
            response.status = "incomplete"
        return response


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/v1/responses", response_model=ResponseObject)
    async def create(body: ResponseBody, request: Request) -> Response:
        asked = _understood(service, body, request)
        return await (asked.stream() if body.stream else asked.answer())

    return routes


def _understood(service: Service, body: ResponseBody, request: Request) -> _Responding:
    """Raises ApiError for what is asked in vain."""
    service.check_right(request, "ask")
    service.check_model(body.model)
    body.check()
    service.check_messages(1 if isinstance(body.input, str) else len(body.input), "input")
    given = Input.of(body.input, body.instructions)
    options = {**service.about(request, body.metadata), **_options(service, body)}
    return _Responding(service, body, given, options, wants_decision(request, body.guardrail))


def _options(service: Service, body: ResponseBody) -> dict[str, Any]:
    options: dict[str, Any] = body.chosen("temperature", "top_p")
    if body.logprobs:
        options |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    if tools := offered(body.functions, body.tool_choice, body.parallel_tool_calls):
        options["tools"] = tools
    options["max_new_tokens"] = service.reply_tokens(body.chosen("max_output_tokens"))
    return options


def _items(reply: Reply, verdict: Verdict) -> list[Item]:
    """The output of a whole reply."""
    identity = _message_id(verdict)
    if reply.refused:
        refusal = RefusalPart(refusal=reply.text)
        return [MessageItem(id=identity, status="completed", content=[refusal])]
    items: list[Item] = [_call(call) for call in reply.tool_calls]
    if reply.text or not items:
        logprobs = Logprob.of(reply.choices[0].logprobs) if reply.choices else []
        status = "incomplete" if reply.finish == "length" else "completed"
        said = TextPart(text=reply.text, logprobs=logprobs)
        items.insert(0, MessageItem(id=identity, status=status, content=[said]))
    return items


def _message_id(verdict: Verdict) -> str:
    return f"msg_{verdict.audit_id}"


def _call(call: ToolCall) -> CallItem:
    return CallItem(
        id=f"fc_{call.id}", status="completed", call_id=call.id, name=call.name, arguments=call.arguments
    )


def _usage(reply: Reply) -> ResponseUsage:
    asked, said = reply.prompt_tokens, reply.new_tokens
    return ResponseUsage(input_tokens=asked, output_tokens=said, total_tokens=asked + said)
