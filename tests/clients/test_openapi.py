"""schemathesis: whatever the OpenAPI document allows, and much besides, never makes the server fail."""

import pytest

schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402

PATIENT = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
SOUND = {"model": "demo", "messages": MESSAGES, "prompt": "Hello", "input": "Hello"}
SHORT = {"max_tokens": 2, "max_completion_tokens": 2, "max_output_tokens": 2}


@pytest.fixture(scope="module")
def operations(server):
    found = schemathesis.openapi.from_url(f"{server}/openapi.json").get_all_operations()
    return [operation.ok() for operation in found]


@settings(PATIENT, max_examples=100)
@given(data=st.data())
def test_no_request_makes_the_server_fail(operations, data):
    case = data.draw(data.draw(st.sampled_from(operations)).as_strategy())
    case.call_and_validate(checks=[not_a_server_error], timeout=60)


@settings(PATIENT, max_examples=100)
@given(data=st.data())
def test_no_option_makes_the_server_fail(operations, data):
    """The model exists and the prompt is sound, so that the guard sees the other fields."""
    asking = [one for one in operations if one.method == "post" and one.path.startswith("/v1/")]
    case = data.draw(data.draw(st.sampled_from(asking)).as_strategy())
    if isinstance(case.body, dict):
        sound = {name: value for name, value in SOUND.items() if name in case.body}
        case.body = {**case.body, **sound, **{name: 2 for name in SHORT if name in case.body}}
    case.call_and_validate(checks=[not_a_server_error], timeout=60)
