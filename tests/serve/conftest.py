"""One guarded model for all tests of the server, and clients of applications around it."""

import time
from contextlib import asynccontextmanager

import pytest
from serving import Running, asking

from guardrail import Guard
from guardrail.files.yaml import read_document
from guardrail.plugins.hookspecs import hookimpl
from guardrail.policy.loading import default_policies
from guardrail.serve.app import create_app
from guardrail.serve.settings import ServerSettings


class Records:
    """Keeps audit records: one for each decision and one for each end."""

    name = "records"

    def __init__(self):
        self.begun, self.ended = [], []

    def decided(self, record):
        self.begun.append(record)

    def finished(self, record):
        self.ended.append(record)

    def close(self):
        return None

    @hookimpl
    def guardrail_audit_sinks(self):
        return [self]


@pytest.fixture(scope="session")
def records():
    """The audit records of all requests to `guard`."""
    return Records()


@pytest.fixture(scope="session")
def guard(records):
    """The built-in model with its own policies, and patience on a busy machine. Tests leave it open."""
    policies = dict(read_document(default_policies("demo")).data)
    policies["defaults"] = {"mode": "enforce", "on_error": "block", "timeout_ms": 60_000}
    policies["audit"] = {"clear": ["conversation", "tags"]}
    with Guard.from_pretrained("demo", policies, plugins=[records]) as guard:
        yield guard


@pytest.fixture(scope="session")
def app(guard):
    """The application with default settings."""
    return create_app(guard, ServerSettings())


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


@pytest.fixture
def slow(monkeypatch):
    """Every forward pass takes at least a twentieth of a second. Gives the times at which passes began."""
    import torch

    passes, embed = list[float](), torch.nn.functional.embedding

    def pausing(*arguments, **named):
        passes.append(time.monotonic())
        time.sleep(0.05)
        return embed(*arguments, **named)

    # not a hook, which would be a change of the model that the guard notices
    monkeypatch.setattr(torch.nn.functional, "embedding", pausing)
    return passes


@pytest.fixture
def running(guard):
    """Starts servers with settings of the test's own, and stops them."""
    made = list[Running]()

    def start(**settings):
        made.append(Running(create_app(guard, ServerSettings(port=0, **settings))))
        return made[-1]

    yield start
    for one in made:
        one.end()
        one.thread.join(10)
        assert not one.thread.is_alive()
