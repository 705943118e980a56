"""Errors in the shape of the OpenAI API, and which of them each error of the guard becomes."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from guardrail.errors import (
    AuditError,
    EscalationError,
    EvaluationError,
    GuardClosed,
    PromptError,
    QueueFull,
    RequestError,
    UnsupportedGeneration,
    located,
)
from guardrail.serve.logs import FIELDS

log = logging.getLogger("guardrail.serve")

INVALID = "invalid_request_error"
SERVER = "server_error"
RETRY = {"retry-after": "1"}
_STATUS: Mapping[type[RequestError], tuple[int, str, str]] = {
    PromptError: (400, INVALID, "invalid_prompt"),
    UnsupportedGeneration: (400, INVALID, "unsupported_generation"),
    QueueFull: (503, SERVER, "overloaded"),
    GuardClosed: (503, SERVER, "shutting_down"),
    EscalationError: (503, SERVER, "tickets_unavailable"),
    EvaluationError: (500, SERVER, "not_evaluated"),
}
"""HTTP status, type and code."""
_KINDS: Mapping[str, tuple[str, str]] = {
    "string_type": ("invalid_type", "a string"),
    "int_type": ("invalid_type", "an integer"),
    "int_from_float": ("invalid_type", "an integer"),
    "float_type": ("invalid_type", "a number"),
    "bool_type": ("invalid_type", "a boolean"),
    "list_type": ("invalid_type", "an array"),
    "dict_type": ("invalid_type", "an object"),
    "model_type": ("invalid_type", "an object"),
    "model_attributes_type": ("invalid_type", "an object"),
}


AUDIT_ID = "x-guardrail-audit-id"
PROMPTS = ("messages", "input", "instructions")
"""What callers call the parts of a prompt."""


class ApiError(HTTPException):
    """An answer that is an error, with the body of OpenAI's: `{"error": {message, type, param, code}}`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        guardrail: BaseModel | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.message, self.type, self.code, self.param = message, type, code, param
        self.guardrail = guardrail

    @property
    def body(self) -> dict[str, Any]:
        """The JSON. Half a surrogate pair, which a message may quote, is escaped."""
        text = self.message.encode("utf-8", "backslashreplace").decode("utf-8")
        error = {"message": text, "type": self.type, "param": self.param, "code": self.code}
        more = {"guardrail": self.guardrail.model_dump(exclude_none=True)} if self.guardrail else {}
        return {"error": error | more}

    def response(self) -> JSONResponse:
        """What is sent."""
        return JSONResponse(self.body, self.status_code, self.headers)


def recorded(error: Exception, audit_id: str | None) -> ApiError:
    """The error that a client gets for a request with this audit record."""
    shown = explained(error)
    if audit_id is not None:
        shown.headers = {**(shown.headers or {}), AUDIT_ID: audit_id}
    return shown


def explained(error: Exception) -> ApiError:
    """The error that a client gets for any exception. One that nobody expected says nothing of the cause."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid([_Problem.of(one, error.body) for one in error.errors()])
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, PromptError) and error.param is not None:
        code = "invalid_prompt" if error.param.startswith(PROMPTS) else "invalid_value"
        return ApiError(400, str(error), code=code, param=error.param)
    for kind, (status, type, code) in _STATUS.items():
        if isinstance(error, kind):
            return ApiError(status, str(error), type=type, code=code, headers=RETRY if status == 503 else {})
    name = secrets.token_hex(6)
    log.error("a request failed: %s", located(error), extra={FIELDS: {"error_id": name}})
    return ApiError(500, _told(error, name), type=SERVER, code="guardrail_error")


def _told(error: Exception, name: str) -> str:
    """What a client is told of an error that nobody expected: nothing of the cause."""
    if isinstance(error, AuditError):
        # where the log is, and what is wrong with its disk, is not for clients
        return "the audit record could not be written, so there is no answer; ask again later"
    if isinstance(error, RequestError):
        return str(error)
    return f"the server failed on this request; its log says why, under the error id {name}"


Answer: TypeAlias = Callable[[Request, ApiError], Awaitable[Response]]
"""Makes a response of an error."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Errors: as pages for who asks for pages, as JSON for programs. `page` makes the former."""

    page: Answer
    is_page: Callable[[str], bool]

    async def __call__(self, request: Request, error: ApiError) -> Response:
        """The response. If even the page of an error fails, it is JSON."""
        if not self._wanted(request):
            return error.response()
        try:
            return await self.page(request, error)
        except Exception as failure:
            log.error("the page of an error failed: %s", located(failure))
            return error.response()

    def _wanted(self, request: Request) -> bool:
        """Browsers name HTML; other clients of a page's path get a page unless they ask for JSON."""
        accepts = request.headers.get("accept", "").lower()
        return "text/html" in accepts or (self.is_page(request.url.path) and "json" not in accepts)


def answers_errors(app: FastAPI, made: Answer) -> None:
    """Let an application answer with these errors."""

    async def answer(request: Request, error: Exception) -> Response:
        return await made(request, explained(_routed(request, error)))

    for kind in (HTTPException, RequestValidationError, RequestError):
        app.add_exception_handler(kind, answer)


def _routed(request: Request, error: Exception) -> Exception:
    """Paths and methods that do not exist, in words."""
    if isinstance(error, ApiError) or not isinstance(error, HTTPException):
        return error
    where = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return ApiError(404, f"Invalid URL ({where})", code="unknown_url")
    if error.status_code == 405:
        allowed = Headers(error.headers or {}).get("allow", "another method")
        message = f"Not allowed: {where}; use {allowed}"
        return ApiError(405, message, code="method_not_supported", headers=error.headers)
    return error


@dataclass(frozen=True, slots=True)
class _Problem:
    """One of pydantic's errors. `path` leads to a value of the body, without the branches of unions."""

    path: tuple[str | int, ...]
    kind: str
    text: str
    value: object

    @classmethod
    def of(cls, error: Mapping[str, Any], body: object) -> Self:
        return cls(_path(error, body), error["type"], error["msg"], error["input"])

    @property
    def name(self) -> str:
        """The path as people write it: `messages[0].role`."""
        parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path]
        return "".join(parts).removeprefix(".")

    @property
    def words(self) -> str:
        """What is wrong, without pydantic's own words."""
        if self.kind in ("too_short", "string_too_short") and not self.value:
            return "it is empty"
        return self.text.removeprefix("Value error, ").replace(" after validation", "")


def _path(error: Mapping[str, Any], body: object) -> tuple[str | int, ...]:
    place, *location = error["loc"]
    if place != "body":
        # the query has no unions
        return tuple(location)
    found = list[str | int]()
    for part in location:
        if (isinstance(body, dict) and part in body) or (isinstance(body, list) and isinstance(part, int)):
            found, body = [*found, part], body[part]  # pyright: ignore[reportCallIssue,reportArgumentType]
        elif error["type"] in ("missing", "extra_forbidden") and part == location[-1]:
            found.append(part)
    return tuple(found)


def _invalid(problems: Sequence[_Problem]) -> ApiError:
    """What is wrong with a body: the first problem, but all fields that are unknown."""
    if unknown := [one.name for one in problems if one.kind == "extra_forbidden"]:
        many = "s" if len(unknown) > 1 else ""
        return ApiError(400, f"Unrecognized request argument{many} supplied: {', '.join(unknown[:20])}")
    same = [one for one in problems if one.path[:1] == problems[0].path[:1]]
    deepest = max(same, key=lambda one: len(one.path))
    # several for one value are the branches of a union; one that has the right type says more
    branches = [one for one in same if one.path == deepest.path]
    return _described(next((one for one in branches if one.kind not in _KINDS), branches[0]), branches)


def _wrong_type(problem: _Problem, branches: Sequence[_Problem]) -> str:
    wanted = " or ".join(dict.fromkeys(_KINDS[one.kind][1] for one in branches if one.kind in _KINDS))
    return f"Invalid type for '{problem.name}': expected {wanted}, but got {_kind(problem.value)} instead."


def _described(problem: _Problem, branches: Sequence[_Problem]) -> ApiError:
    name, words = problem.name, problem.words
    if not name and problem.kind == "value_error":
        return ApiError(400, f"{words}.", code="invalid_value")
    if not name:
        return ApiError(400, "The body must be a JSON object, sent with `content-type: application/json`.")
    if problem.kind == "missing":
        text, code = f"Missing required parameter: '{name}'.", "missing_required_parameter"
    elif problem.kind in _KINDS:
        text, code = _wrong_type(problem, branches), _KINDS[problem.kind][0]
    else:
        text, code = f"Invalid value for '{name}': {words[:1].lower()}{words[1:]}.", "invalid_value"
    return ApiError(400, text, param=name, code=code)


def _kind(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "a boolean"
    kinds: Mapping[type, str] = {str: "a string", list: "an array", dict: "an object"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), "a number")
