"""The guardrail webhook of agentgateway and kgateway: `/request` and `/response`.

The gateway tells actions apart by their fields: one without a `body` that it understands is a pass. It does
not look at the HTTP status of the answer. An answer without `action` is a failure there, and fails closed
unless the gateway was told otherwise.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from guardrail.errors import PromptError
from guardrail.serve.errors import ApiError
from guardrail.serve.gateways.reader import ReaderVerdict, rule, said
from guardrail.serve.service import Service

RAW = (
    "`messageFormat: raw` is not supported: the gateway would take errors for a pass. Leave it out, so that "
    "messages come under `body`."
)


class Turn(BaseModel):
    """One message. The gateway has left out whatever is no text."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: str
    content: str

    def message(self) -> dict[str, Any]:
        """For the guard. Some providers write roles with a capital."""
        return self.model_dump() | {"role": self.role.lower()}


class PromptMessages(BaseModel):
    """The messages of a request. Fields of later versions are content that cannot be read, unless empty."""

    model_config = ConfigDict(extra="allow", strict=True)

    messages: list[Turn]

    def turns(self) -> list[dict[str, Any]]:
        """For the guard: what no known version has is in the last message, where policies decide on it."""
        turns = [turn.message() for turn in self.messages]
        unread = {f"request_{name}": value for name, value in (self.model_extra or {}).items() if value}
        return [*turns[:-1], {**turns[-1], **unread}] if turns else []


class Choice(BaseModel):
    """One reply of the other model."""

    message: Turn


class ResponseChoices(BaseModel):
    """All replies to one request, or the part of a streamed one that the gateway has gathered."""

    choices: list[Choice]


class PromptRequest(BaseModel):
    """The body of `/request`. `messages` is there if the gateway was told to send them raw."""

    body: PromptMessages | None = None
    messages: Any = None


class ResponseRequest(BaseModel):
    """The body of `/response`."""

    body: ResponseChoices


class Pass(BaseModel):
    """Leave it as it is."""

    reason: str


class Reject(BaseModel):
    """Answer the client with this status and this body."""

    body: str
    status_code: int
    reason: str


class Answer(BaseModel):
    """What the gateway reads is `action`."""

    action: Reject | Pass
    guardrail: ReaderVerdict | None = None


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter()
    reader = service.settings.model

    @routes.post("/request", response_model=Answer, response_model_exclude_none=True)
    async def prompt(body: PromptRequest, request: Request) -> Answer | JSONResponse:
        service.check_right(request, "ask")
        if body.messages is not None:
            # an answer with no messages at all is the only one that the gateway refuses then
            return JSONResponse({**ApiError(400, RAW).body, "messages": []}, 400)
        turns = body.body.turns() if body.body else []
        service.check_messages(len(turns))
        try:
            ruling = await rule(service, [turns], service.about(request))
        except PromptError as error:
            # the prompt's own fault, and not a failure that gateways may be told to go on after
            return Answer(action=_reject(str(error), "invalid_prompt", f"reader_model: {reader}; not read"))
        verdict = ReaderVerdict.of(ruling, reader)
        if (text := said(ruling)) is None:
            return Answer(action=Pass(reason=verdict.reason), guardrail=verdict)
        return Answer(action=_reject(text, verdict.code, verdict.reason), guardrail=verdict)

    # no action refuses a reply in every version: some take a reject for a pass, others a mask while streaming
    @routes.post("/response", response_model_exclude_none=True)
    async def reply(body: ResponseRequest, request: Request) -> Answer:
        service.check_right(request, "ask")
        # whatever a provider calls the model that replies
        replies = [[choice.message.message() | {"role": "assistant"}] for choice in body.body.choices]
        if not replies:
            raise ApiError(400, "There are no choices to read.", code="empty", param="body.choices")
        service.check_messages(len(replies))
        ruling = await rule(service, replies, service.about(request))
        verdict = ReaderVerdict.of(ruling, reader)
        if ruling.text is not None:
            raise ApiError(400, f"{ruling.text} ({verdict.reason})", code=verdict.code)
        return Answer(action=Pass(reason=verdict.reason), guardrail=verdict)

    return routes


def _reject(text: str, code: str, reason: str) -> Reject:
    """The client gets the error that this server would give."""
    error = ApiError(400, text, code=code)
    return Reject(body=json.dumps(error.body), status_code=error.status_code, reason=reason)
