"""Reloading policies and keys: `POST /admin/reload`, SIGHUP. Their files are watched as well."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from typing import Literal, TypeAlias

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from guardrail.errors import AuditError, DocumentError, RestartNeeded, outline
from guardrail.policy.loading import ActivePolicies
from guardrail.policy.reload import Reload
from guardrail.serve.service import Service

log = logging.getLogger("guardrail.serve")

Code: TypeAlias = Literal["policies_refused", "keys_refused", "restart_needed", "not_recorded"]


class Hashes(BaseModel):
    """What decides."""

    policies: str
    vectors: str
    calibration: str

    @classmethod
    def of(cls, active: ActivePolicies) -> Hashes:
        """The hashes that decisions carry."""
        plan = active.plan
        return cls(
            policies=plan.policy_sha256, vectors=plan.vectors_sha256, calibration=plan.calibration_sha256
        )


class Reloaded(BaseModel):
    """The answer to a reload that succeeded. `warnings` are those of every decision, and of the server."""

    before: Hashes
    after: Hashes
    warnings: list[str]
    keys: list[str]
    """The names of the API keys in force."""


class Refusal(BaseModel):
    """Why a reload failed. `problems` name file, line, column and key, if it is a problem of a file."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    code: Code
    param: None = None
    problems: list[str]


class NotReloaded(BaseModel):
    """The answer to a reload of which a part failed: policies or keys, whose last good ones stay in force."""

    error: Refusal
    in_force: Hashes
    keys: list[str]
    """The names of the API keys in force."""


def router(service: Service) -> APIRouter:
    """`POST /admin/reload`."""
    routes = APIRouter(tags=["operations"])
    refused = {status: {"model": NotReloaded} for status in (409, 422, 503)}

    @routes.post("/admin/reload", responses={**refused})
    async def reload(request: Request, response: Response) -> Reloaded | NotReloaded:
        """Read policies, vectors, calibration and API keys again. On failure the last good ones stay."""
        service.check_right(request, "admin")
        done, keys_error = await asyncio.to_thread(reload_all, service)
        response.status_code, answer = answer_to(done, keys_error, service)
        return answer

    return routes


def reload_all(service: Service) -> tuple[Reload, Exception | None]:
    """Reload policies and keys, each whether or not the other fails. Says what became of them."""
    keys_error = service.keys.reload()
    return service.guard.policies.try_reload(), keys_error


def answer_to(
    done: Reload, keys_error: Exception | None, service: Service
) -> tuple[int, Reloaded | NotReloaded]:
    """HTTP status and body."""
    keys = service.keys.names
    failed = {"policies": done.error, "API keys": keys_error}
    errors = {what: error for what, error in failed.items() if error is not None}
    if not errors:
        before, after = Hashes.of(done.before), Hashes.of(done.after)
        warnings = [*done.after.plan.warnings, *service.warnings]
        return 200, Reloaded(before=before, after=after, warnings=warnings, keys=keys)
    status, code = _kind(done.error)
    said = [
        f"the {what} were not reloaded; the last good ones stay in force: {outline(error)}"
        for what, error in errors.items()
    ]
    refusal = Refusal(
        message="; ".join(said),
        type="server_error" if status >= 500 else "invalid_request_error",
        code=code,
        problems=[problem for error in errors.values() for problem in _problems(error)],
    )
    return status, NotReloaded(error=refusal, in_force=Hashes.of(done.after), keys=keys)


def _kind(error: Exception | None) -> tuple[int, Code]:
    """Of an error of the policies, or of the keys if there is none of the policies."""
    if error is None:
        return 422, "keys_refused"
    if isinstance(error, RestartNeeded):
        return 409, "restart_needed"
    return (503, "not_recorded") if isinstance(error, AuditError) else (422, "policies_refused")


def _problems(error: Exception) -> list[str]:
    if isinstance(error, DocumentError):
        return [problem.describe(error.source) for problem in error.problems]
    return []


def reload_on_hangup(service: Service) -> None:
    """Reload on SIGHUP, from now on. Only the event loop of the main thread hears signals."""

    def hung_up() -> None:
        loop.run_in_executor(None, reload_all, service)

    loop = asyncio.get_running_loop()
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        loop.add_signal_handler(signal.SIGHUP, hung_up)
