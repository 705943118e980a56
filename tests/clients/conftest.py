"""One server for clients that come with their own libraries."""

import pytest
from loopback import running

from guardrail import Guard


@pytest.fixture(scope="session")
def guard():
    with Guard.from_pretrained("demo") as guard:
        yield guard


@pytest.fixture(scope="session")
def server(guard):
    """The base URL of a server with default settings."""
    with running(guard) as base:
        yield base
