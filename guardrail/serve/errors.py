"""Errors in the shape of the OpenAI API, and which of them each error of the guard becomes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from guardrail.errors import (
    EvaluationError,
    GuardClosed,
    PromptError,
    QueueFull,
    RequestError,
    UnsupportedGeneration,
    located,
)

log = logging.getLogger("guardrail.serve")

INVALID = "invalid_request_error"
SERVER = "server_error"
RETRY = {"retry-after": "1"}
_STATUS: Mapping[type[RequestError], tuple[int, str, str]] = {
    PromptError: (400, INVALID, "invalid_prompt"),
    UnsupportedGeneration: (400, INVALID, "unsupported_generation"),
    QueueFull: (503, SERVER, "overloaded"),
    GuardClosed: (503, SERVER, "shutting_down"),
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
    "finite_number": ("invalid_value", "a finite number"),
}


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


def explained(error: Exception) -> ApiError:
    """The error that a client gets for any exception. One that nobody expected says nothing of the cause."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors())
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), headers=error.headers)
    for kind, (status, type, code) in _STATUS.items():
        if isinstance(error, kind):
            return ApiError(status, str(error), type=type, code=code, headers=RETRY if status == 503 else {})
    log.error("a request failed: %s", located(error))
    if isinstance(error, RequestError):
        return ApiError(500, str(error), type=SERVER, code="guardrail_error")
    return ApiError(500, "the server failed on this request; its log says why", type=SERVER)


def answers_errors(app: FastAPI) -> None:
    """Let an application answer with these errors."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return explained(_routed(request, error)).response()

    for kind in (HTTPException, RequestValidationError, RequestError, Exception):
        app.add_exception_handler(kind, answer)


def _routed(request: Request, error: Exception) -> Exception:
    """Paths and methods that do not exist, in words."""
    if isinstance(error, ApiError) or not isinstance(error, HTTPException):
        return error
    where = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return ApiError(404, f"Invalid URL ({where})", code="unknown_url")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("allow", "another method")
        message = f"Not allowed: {where}; use {allowed}"
        return ApiError(405, message, code="method_not_supported", headers=error.headers)
    return error


def _invalid(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """What is wrong with a body: the first problem, but all fields that are unknown."""
    if unknown := [_param(error) for error in errors if error["type"] == "extra_forbidden"]:
        many = "s" if len(unknown) > 1 else ""
        return ApiError(400, f"Unrecognized request argument{many} supplied: {', '.join(unknown[:20])}")
    return _problem(errors[0])


def _problem(error: Mapping[str, Any]) -> ApiError:
    name, kind = _param(error), error["type"]
    if not name:
        return ApiError(400, "The body must be a JSON object, sent with `content-type: application/json`.")
    if kind == "missing":
        text, code = f"Missing required parameter: '{name}'.", "missing_required_parameter"
    elif kind in _KINDS:
        code, wanted = _KINDS[kind]
        text = f"Invalid type for '{name}': expected {wanted}, but got {_name(error['input'])} instead."
    else:
        words = str(error["msg"]).removeprefix("Value error, ")
        text, code = f"Invalid value for '{name}': {words[:1].lower()}{words[1:]}.", "invalid_value"
    return ApiError(400, text, param=name, code=code)


def _param(error: Mapping[str, Any]) -> str:
    """`messages[0].role`, without the branches of unions."""
    text = ""
    for part in error["loc"]:
        if part in ("body", "query", "path", "header"):
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _name(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "a boolean"
    kinds: Mapping[type, str] = {str: "a string", list: "an array", dict: "an object"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), "a number")
