"""`/review`: prompts that wait for a person."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guardrail.pipeline.cancellation import in_thread
from guardrail.serve.keys import Right
from guardrail.serve.pages.site import Page, Site

PATH = "/review"
RIGHTS: tuple[Right, ...] = ("review",)


def router(site: Site) -> APIRouter:
    """The routes."""
    routes, tickets = APIRouter(), site.service.guard.tickets

    @routes.get(PATH)
    async def waiting(request: Request) -> Response:
        visitor = site.visitor(request, RIGHTS)
        found = await in_thread(tickets.pending)
        return site.render(visitor, "review.html.j2", PATH, tickets=found)

    return routes


PAGE = Page(PATH, "Review", RIGHTS, router)
