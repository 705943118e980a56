"""Reloading policies by request or signal: `POST /admin/reload`, SIGHUP. The file is watched as well."""

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

Code: TypeAlias = Literal["policies_refused", "restart_needed", "not_recorded"]


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
    """The answer to a reload that succeeded. `warnings` are those that every decision carries."""

    before: Hashes
    after: Hashes
    warnings: list[str]


class Refusal(BaseModel):
    """Why a reload failed. `problems` name file, line, column and key, if it is a problem of a file."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    code: Code
    param: None = None
    problems: list[str]


class NotReloaded(BaseModel):
    """The answer to a reload that failed; what was in force before still is."""

    error: Refusal
    in_force: Hashes


def router(service: Service) -> APIRouter:
    """`POST /admin/reload`."""
    routes = APIRouter(tags=["operations"])
    refused = {status: {"model": NotReloaded} for status in (409, 422, 503)}

    @routes.post("/admin/reload", responses={**refused})
    async def reload(request: Request, response: Response) -> Reloaded | NotReloaded:
        """Read the policy file, its vectors and its calibration again. On failure the last good ones stay."""
        service.check_right(request, "admin")
        done = await asyncio.to_thread(service.guard.policies.try_reload)
        response.status_code, answer = answer_to(done)
        return answer

    return routes


def answer_to(done: Reload) -> tuple[int, Reloaded | NotReloaded]:
    """HTTP status and body."""
    if (error := done.error) is None:
        before, after = Hashes.of(done.before), Hashes.of(done.after)
        return 200, Reloaded(before=before, after=after, warnings=list(done.after.plan.warnings))
    status, code = _kind(error)
    refusal = Refusal(
        message=f"the policies were not reloaded; the last good ones stay in force: {outline(error)}",
        type="server_error" if status >= 500 else "invalid_request_error",
        code=code,
        problems=_problems(error),
    )
    return status, NotReloaded(error=refusal, in_force=Hashes.of(done.after))


def _kind(error: Exception) -> tuple[int, Code]:
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
        loop.run_in_executor(None, service.guard.reload)

    loop = asyncio.get_running_loop()
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        loop.add_signal_handler(signal.SIGHUP, hung_up)
