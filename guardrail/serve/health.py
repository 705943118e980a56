"""`/healthz`: the process lives. `/readyz`: it decides, so requests may come here.

Both are cheap: whether it decides is what the latest warm-up check has found.
"""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from guardrail.serve.service import Service

STUCK_S = 60.0
"""How much longer than its deadline a request may keep the model busy."""


class Health(BaseModel):
    """The answer of `/healthz`."""

    alive: bool
    problem: str | None = None


class Ready(BaseModel):
    """The answer of `/readyz`: what is in force, and why requests should go elsewhere, if they should."""

    ready: bool
    problems: list[str]
    model: str
    fingerprint: str
    policy_sha256: str
    vectors_sha256: str
    calibration_sha256: str
    policies_loaded: str
    reload_failing: bool
    """Whether the latest reload failed, so that older policies are in force."""
    keys_failing: bool
    """Whether the file of API keys is wrong, so that older keys are in force."""
    fail_open: bool
    """Whether any enforced policy lets prompts pass on errors."""


def router(service: Service) -> APIRouter:
    """The two routes."""
    routes = APIRouter(tags=["operations"])

    @routes.head("/healthz", include_in_schema=False)
    @routes.get("/healthz", responses={503: {"model": Health}})
    async def healthz(response: Response) -> Health:
        """Whether the process lives; restart it if it does not."""
        problem = _dead(service)
        response.status_code = 503 if problem else 200
        return Health(alive=problem is None, problem=problem)

    @routes.head("/readyz", include_in_schema=False)
    @routes.get("/readyz", responses={503: {"model": Ready}})
    async def readyz(response: Response) -> Ready:
        """Whether requests should come here, and the hashes of what decides."""
        service.warm_up.look()
        found = ready(service)
        response.status_code = 200 if found.ready else 503
        return found

    return routes


def ready(service: Service) -> Ready:
    """The answer of `/readyz` at this moment."""
    guard, plan = service.guard, service.guard.active.plan
    problems = [*_standing(service), *service.warm_up.problems]
    return Ready(
        ready=not problems,
        problems=problems,
        model=service.settings.model,
        fingerprint=guard.engine.fingerprint.weights,
        policy_sha256=plan.policy_sha256,
        vectors_sha256=plan.vectors_sha256,
        calibration_sha256=plan.calibration_sha256,
        policies_loaded=guard.policies.loaded_at.isoformat(timespec="seconds"),
        reload_failing=guard.policies.error is not None,
        keys_failing=service.keys.error is not None,
        fail_open=plan.fail_open,
    )


def _standing(service: Service) -> list[str]:
    audit, delivery = service.guard.audit, service.delivery
    problems = ["the server is shutting down"] if delivery.draining else []
    if problem := _dead(service):
        problems.append(problem)
    if audit.failing is not None and audit.settings.on_error == "block":
        problems.append("audit records cannot be written, and requests are refused without them")
    return problems


def _dead(service: Service) -> str | None:
    load, limit = service.guard.load, service.settings.deadline_s + STUCK_S
    if not load.alive:
        return "the model's worker has ended"
    if load.busy_s is not None and load.busy_s > limit:
        return f"the model has worked on one request for {load.busy_s:.0f} s"
    return None
