"""The server's application: routes, and what stands in front of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from guardrail import Guard, __version__
from guardrail.serve import tickets
from guardrail.serve.errors import answers_errors
from guardrail.serve.gateways import agentgateway, check, litellm
from guardrail.serve.keys import Keys
from guardrail.serve.limits import Limits
from guardrail.serve.openai import chat, completions, models
from guardrail.serve.service import Service
from guardrail.serve.settings import ServerSettings

ROUTERS = (
    chat.router,
    completions.router,
    models.router,
    check.router,
    litellm.router,
    agentgateway.router,
    tickets.router,
)


def create_app(guard: Guard, settings: ServerSettings) -> FastAPI:
    """The application around a guard, which stays the caller's to close. `app.state.service` serves it."""
    service = Service(guard, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        yield
        service.delivery.close()

    app = FastAPI(title="guardrail", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    for router in ROUTERS:
        app.include_router(router(service))
    answers_errors(app)
    # the last one added is the first to see a request
    app.add_middleware(Limits, settings=settings)
    app.add_middleware(Keys, keys=settings.keys)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=["*"]
        )
    return app
