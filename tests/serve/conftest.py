"""One guarded model for all tests of the server, and clients of applications around it."""

from contextlib import asynccontextmanager

import httpx
import pytest

from guardrail import Guard
from guardrail.serve.app import create_app
from guardrail.serve.settings import ServerSettings


@pytest.fixture(scope="session")
def guard():
    """The built-in model with its own policies. Tests leave it open."""
    with Guard.from_pretrained("demo") as guard:
        yield guard


@pytest.fixture(scope="session")
def app(guard):
    """The application with default settings."""
    return create_app(guard, ServerSettings())


@asynccontextmanager
async def asking(app, **headers):
    """A client that calls an application directly. Streams come as a whole."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as http:
        yield http


@pytest.fixture
async def client(app):
    """A client of the application with default settings."""
    async with asking(app) as http:
        yield http


@pytest.fixture
def serving(guard):
    """Clients of applications with other settings: `async with serving(blocks="error") as http`."""

    @asynccontextmanager
    async def made(**settings):
        async with asking(create_app(guard, ServerSettings(**settings))) as http:
            yield http

    return made
