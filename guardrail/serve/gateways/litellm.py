"""LiteLLM's generic guardrail API, as LiteLLM 1.108 calls it.

Everything in a request is read: the messages, texts that are in none of them, tool calls and tools. What
cannot be read, policies decide with `unsupported_input`. Nothing is rewritten, so `GUARDRAIL_INTERVENED` is
never answered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from guardrail.errors import PromptError
from guardrail.pipeline.options import RequestOptions
from guardrail.pipeline.ruling import Ruling
from guardrail.serve.errors import ApiError
from guardrail.serve.gateways.reader import ReaderVerdict, reads_tools, rule, said
from guardrail.serve.service import Service
from guardrail.serve.verdict import Verdict

HIDDEN = "[present]"
"""In place of a header that LiteLLM does not forward."""
Turn: TypeAlias = dict[str, Any]
Tool: TypeAlias = dict[str, Any]


class GuardrailRequest(BaseModel):
    """What LiteLLM sends. Fields of later versions are content that cannot be read, unless they are empty."""

    model_config = ConfigDict(extra="allow", strict=True)

    input_type: Literal["request", "response"]
    texts: list[str] | None = None
    structured_messages: list[Turn] | None = None
    tools: list[Tool] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    images: list[Any] | None = None
    request_data: dict[str, Any] | None = None
    request_headers: dict[str, str] | None = None
    additional_provider_specific_params: dict[str, Any] | None = None
    litellm_call_id: str | None = None
    litellm_trace_id: str | None = None
    litellm_version: str | None = None
    model: str | None = None

    def prompts(self, unread_tools: Sequence[Tool]) -> list[list[Turn]]:
        """The prompts to rule on; the first is the request's own. Raises ApiError if there is nothing."""
        turns = self.structured_messages or []
        loose = [*self._loose_texts(turns), *self._loose_calls(turns)]
        prompts = [turns] if turns else []
        prompts += [[{"role": "user", "content": text}] for text in loose]
        if self.input_type == "response":
            prompts = [[*turns, {"role": "assistant", "content": text}] for text in loose]
        unread = self._unread(unread_tools)
        if not prompts and not unread:
            raise ApiError(400, "There are no texts and no messages to read.", code="empty", param="texts")
        first, *others = prompts or [[{"role": "user", "content": ""}]]
        return [[*first[:-1], {**first[-1], **unread}], *others]

    def about(self) -> dict[str, str]:
        """What LiteLLM forwards of its client's headers, if told to. Tags are not a client's to choose."""
        given = {name.lower(): value for name, value in (self.request_headers or {}).items()}
        found = {name: given.get(f"x-guardrail-{name}", HIDDEN) for name in ("conversation", "ticket")}
        return {name: value for name, value in found.items() if value != HIDDEN}

    def _loose_texts(self, turns: Sequence[Turn]) -> list[str]:
        """Texts that are in no message: of completions, embeddings, instructions of responses."""
        known = set(_texts(turns))
        return [text for text in self.texts or [] if text.strip() and text not in known]

    def _loose_calls(self, turns: Sequence[Turn]) -> list[str]:
        """Tool calls that are in no message, as text."""
        lists = [turn.get("tool_calls") for turn in turns]
        known = [call for calls in lists if isinstance(calls, list) for call in calls]  # pyright: ignore[reportUnknownVariableType]
        return [json.dumps(call, ensure_ascii=False) for call in self.tool_calls or [] if call not in known]

    def _unread(self, tools: Sequence[Tool]) -> dict[str, Any]:
        """What is no text, under keys that no message has."""
        found = {"images": self.images, "tools": tools, **(self.model_extra or {})}
        return {f"request_{name}": value for name, value in found.items() if value}


class GuardrailResponse(BaseModel):
    """What LiteLLM reads is `action` and `blocked_reason`; it logs the rest."""

    action: Literal["NONE", "BLOCKED"]
    blocked_reason: str | None = Field(default=None)
    reader_model: str
    guardrail: ReaderVerdict | None = None


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()
    reader, knows_tools = service.settings.model, reads_tools(service.guard.engine)

    @routes.post("/beta/litellm_basic_guardrail_api", response_model_exclude_none=True)
    async def guardrail(body: GuardrailRequest, request: Request, response: Response) -> GuardrailResponse:
        service.check_right(request, "ask")
        tools = [tool for tool in body.tools or [] if knows_tools and _is_function(tool)]
        prompts = body.prompts([tool for tool in body.tools or [] if tool not in tools])
        service.check_messages(sum(map(len, prompts)))
        try:
            ruling = await _ruled(service, prompts, tools, service.about(request, body.about()))
        except PromptError as error:
            # LiteLLM can be told to go on after an error, and this one is the prompt's own
            return GuardrailResponse(action="BLOCKED", blocked_reason=str(error), reader_model=reader)
        response.headers.update(Verdict.ruled(ruling).headers)
        return GuardrailResponse(
            action="NONE" if ruling.passes else "BLOCKED",
            blocked_reason=said(ruling),
            reader_model=reader,
            guardrail=ReaderVerdict.of(ruling, reader),
        )

    return routes


async def _ruled(
    service: Service,
    prompts: Sequence[list[Turn]],
    tools: Sequence[Tool],
    about: RequestOptions,
) -> Ruling:
    """Tools belong to the first prompt."""
    first, *others = prompts
    ruling = await rule(service, [first], {**about, "tools": tools})
    return await rule(service, others, about) if others and ruling.passes else ruling


def _texts(turns: Sequence[Turn]) -> Iterable[str]:
    """The texts that the guard reads in these messages."""
    for turn in turns:
        content = turn.get("content")
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            yield from (part["text"] for part in content if _is_text(part))  # pyright: ignore[reportUnknownVariableType]


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)  # pyright: ignore[reportUnknownMemberType]


def _is_function(tool: Tool) -> bool:
    """Whether a chat template can have a place for it: tools of providers have other forms."""
    function = tool.get("function")
    return isinstance(function, dict) and isinstance(function.get("name"), str)  # pyright: ignore[reportUnknownMemberType]
