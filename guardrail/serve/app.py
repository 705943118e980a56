"""The server's application: routes, and what stands in front of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from guardrail import Guard, __version__
from guardrail.serve import health, metrics_page, reload, tickets
from guardrail.serve.errors import Answers, answers_errors
from guardrail.serve.gateways import agentgateway, check, litellm
from guardrail.serve.keys import OPEN, Keys
from guardrail.serve.limits import Limits
from guardrail.serve.metrics import Metrics
from guardrail.serve.observation import Observed
from guardrail.serve.openai import chat, completions, models, responses
from guardrail.serve.pages import site as pages
from guardrail.serve.pages.catalogue import PAGES
from guardrail.serve.service import Service
from guardrail.serve.settings import ServerSettings
from guardrail.serve.verdict import HEADERS

ROUTERS = (
    chat.router,
    completions.router,
    responses.router,
    models.router,
    check.router,
    litellm.router,
    agentgateway.router,
    tickets.router,
    health.router,
    metrics_page.router,
    reload.router,
)


def create_app(guard: Guard, settings: ServerSettings) -> FastAPI:
    """The application around a guard, which stays the caller's to close. `app.state.service` serves it.

    Raises PluginError if a plugin cannot add what it adds.
    """
    service = Service(guard, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        service.warm_up.look()
        watching = asyncio.create_task(service.watch())
        yield
        watching.cancel()
        await service.warm_up.end()
        await service.refusals.end()
        service.delivery.close()

    # a redirect would name this server as it was called, without the TLS of a proxy in front: clients send
    # prompts there
    app = FastAPI(
        title="guardrail",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    site = pages.Site(service, PAGES)
    app.state.site = site
    routers = [*(router(service) for router in ROUTERS), pages.router(site)]
    for router in routers:
        app.include_router(router)
    answer = Answers(site.problem, site.has)
    answers_errors(app, answer)
    _put_in_front(app, service, site, answer)
    routes = [route for router in routers for route in router.routes]
    app.add_middleware(Observed, metrics=Metrics.of(guard), routes=routes)
    guard.active.plugins.extend_app(app)
    return app


def _put_in_front(app: FastAPI, service: Service, site: pages.Site, answer: Answers) -> None:
    """Limits, keys and CORS. The last one added is the first to see a request."""
    settings = service.settings
    app.add_middleware(Limits, settings=settings, forms=site.has, answer=answer)
    open_paths = (*OPEN, "/metrics") if settings.open_metrics else OPEN
    app.add_middleware(
        Keys,
        keys=lambda: service.keys.active,
        open=lambda path: path in open_paths or site.has(path),
        answer=answer,
        refused=service.refusals.unknown,
    )
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["retry-after", *HEADERS],
        )
