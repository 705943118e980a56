"""schemathesis: whatever the OpenAPI document allows, and much besides, never makes the server fail."""

import pytest

schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, settings  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402

ONCE = settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
SOUND = {"model": "demo", "messages": MESSAGES, "prompt": "Hello", "input": "Hello", "max_tokens": 2}


@pytest.fixture(scope="session")
def api(server):
    return schemathesis.openapi.from_url(f"{server}/openapi.json")


schema = schemathesis.pytest.from_fixture("api")


@ONCE
@schema.parametrize()
def test_no_request_makes_the_server_fail(case):
    case.call_and_validate(checks=[not_a_server_error], timeout=60)


@ONCE
@schema.include(
    method="POST", path_regex="^/v1/(chat/completions|completions|responses|guard/check)$"
).parametrize()
def test_no_option_makes_the_server_fail(case):
    """The model exists and the prompt is sound, so that the guard sees the other fields."""
    if isinstance(case.body, dict):
        case.body = {**case.body, **{name: value for name, value in SOUND.items() if name in case.body}}
    case.call_and_validate(checks=[not_a_server_error], timeout=60)
