"""`/v1/guard/check`: decisions on prompts that another model may answer. Nothing is done about them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from guardrail.errors import PromptError
from guardrail.files.decision_rows import decision_row
from guardrail.pipeline.options import RequestOptions
from guardrail.pipeline.request import request as parsed
from guardrail.pipeline.ruling import elsewhere
from guardrail.serve.errors import ApiError
from guardrail.serve.openai.shapes import Metadata
from guardrail.serve.service import Service
from guardrail.serve.turns import check_turns
from guardrail.serve.verdict import Verdict
from guardrail.types import Check, Messages


class Prompt(BaseModel):
    """One of several prompts."""

    model_config = ConfigDict(extra="forbid", strict=True)

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _no_message(cls, data: object) -> object:
        if isinstance(data, dict) and "role" in data:
            raise ValueError('this is a message; wrap the messages of a prompt: `{"messages": [...]}`')
        return data  # pyright: ignore[reportUnknownVariableType]


class CheckBody(BaseModel):
    """The body of a request: `messages`, or `input`, a text or a list of prompts."""

    model_config = ConfigDict(extra="forbid", strict=True)

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    input: str | Annotated[list[str | Prompt], Field(min_length=1)] | None = None
    tools: list[dict[str, Any]] | None = None
    metadata: Metadata | None = None
    model: str | None = None

    def prompts(self) -> Sequence[Messages | str]:
        """All prompts. Raises ApiError if there are none, both fields, or content of a wrong type."""
        if (self.messages is None) == (self.input is None):
            text = "Give either `messages`, or `input` with a text or a list of prompts."
            raise ApiError(400, text, code="invalid_value")
        if self.messages is not None:
            check_turns(self.messages, "messages")
            return [self.messages]
        given = [self.input] if isinstance(self.input, str) else self.input or []
        for number, item in enumerate(given):
            if isinstance(item, Prompt):
                check_turns(item.messages, f"input[{number}].messages")
        return [item if isinstance(item, str) else item.messages for item in given]


class ScoreRow(BaseModel):
    """One condition of one policy."""

    policy: str
    trait: str
    layer: int | None
    score: float | None
    threshold: float | None
    fired: bool
    mode: str


class Latency(BaseModel):
    """Milliseconds, of the prompt's whole batch."""

    guard: float
    prefill: float


class CheckRow(BaseModel):
    """One decision, as `guardrail check --json` prints it.

    `verdict` is what it comes to for a model that this server cannot steer or rephrase for: `otherwise` of
    the policies that want to. `reader_model` has read the prompt, and thresholds are made for it.
    """

    verdict: str
    reader_model: str
    status: Literal["evaluated", "error", "not_evaluated"]
    action: str
    would_action: str
    policy: str | None
    scores: list[ScoreRow]
    policy_sha256: str
    vectors_sha256: str
    audit_id: str
    fail_open: bool
    warnings: list[str]
    error: str | None
    latency_ms: Latency


class CheckRows(BaseModel):
    """Several decisions, in the order of the prompts."""

    object: Literal["list"] = "list"
    reader_model: str
    data: list[CheckRow]


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/v1/guard/check")
    async def check(body: CheckBody, request: Request, response: Response) -> CheckRow | CheckRows:
        service.check_right(request, "ask")
        if body.model is not None:
            service.check_model(body.model)
        prompts = body.prompts()
        count = sum(1 if isinstance(prompt, str) else len(prompt) for prompt in prompts)
        service.check_messages(count, "input" if body.messages is None else "messages")
        about: RequestOptions = {**service.about(request, body.metadata), "tools": body.tools}
        _check_prompts(prompts, about, isinstance(body.input, list))
        checks = await service.delivery.run(partial(service.guard.check_many, prompts, **about))
        rows = [_row(service, check) for check in checks]
        if isinstance(body.input, list):
            return CheckRows(reader_model=service.settings.model, data=rows)
        response.headers.update(_verdict(checks[0]).headers)
        return rows[0]

    return routes


def _check_prompts(prompts: Sequence[Messages | str], about: RequestOptions, numbered: bool) -> None:
    """Raises ApiError that says which of several prompts cannot be read."""
    for i, prompt in enumerate(prompts):
        try:
            parsed("check", prompt, **about)
        except PromptError as error:
            text = f"input[{i}]: {error}" if numbered else str(error)
            param = f"input[{i}]" if numbered else error.param
            raise ApiError(400, text, code="invalid_prompt", param=param) from None


def _verdict(check: Check) -> Verdict:
    return Verdict(check.audit_id, [check.decision], check.timing)


def _row(service: Service, check: Check) -> CheckRow:
    row = decision_row(check.decision, check.audit_id, check.timing)
    verdict = elsewhere(check.decision, service.guard.active.plan)
    return CheckRow(verdict=verdict, reader_model=service.settings.model, **row)
