"""`/v1/guard/check`: decisions on prompts that another model may answer."""

import json

import pytest
from doors import BAD_PROMPTS, BLOCKED, CHECK, ELSEWHERE, IMAGE, PERSON, STOPS


@pytest.mark.parametrize("action", STOPS)
async def test_a_check_is_that_of_the_guard_and_names_the_reader(client, guard, action):
    response = await client.post(CHECK, json={"messages": STOPS[action]})
    row, decision = response.json(), guard.check(STOPS[action]).decision
    assert (response.status_code, row["action"], row["reader_model"]) == (200, action, "demo")
    assert row["verdict"] == ELSEWHERE[action]
    assert [score["score"] for score in row["scores"]] == [
        pytest.approx(score.score, abs=1e-4) for score in decision.scores
    ]
    assert response.headers["x-guardrail-audit-id"] == row["audit_id"]


async def test_a_check_opens_no_ticket(client, guard):
    await client.post(CHECK, json={"messages": PERSON})
    assert not [ticket for sink in guard.sinks.values() for ticket in sink.pending()]


async def test_a_check_takes_a_text_or_a_batch(client):
    one = (await client.post(CHECK, json={"input": "Hello"})).json()
    many = (await client.post(CHECK, json={"input": ["Hello", {"messages": BLOCKED}]})).json()
    assert (many["object"], many["reader_model"]) == ("list", "demo")
    assert [row["action"] for row in many["data"]] == [one["action"], "block"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "invalid_value", None),
        ({"messages": BLOCKED, "input": "Hello"}, "invalid_value", None),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": "Hello"}, "invalid_type", "messages"),
        ({"input": ["Hello", 5]}, "invalid_type", None),
        ({"input": []}, None, None),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "invalid_json", None),
        ({"input": "Hello", "tags": ["x"]}, None, None),
        ({"input": "Hello", "model": "gpt-4"}, "model_not_found", "model"),
        ({"input": ["Hello", " "]}, "invalid_prompt", "input[1]"),
        *(({"messages": prompt}, "invalid_prompt", None) for prompt in BAD_PROMPTS.values()),
    ],
)
async def test_what_cannot_be_checked_is_a_client_error(client, body, code, param):
    response = await client.post(
        CHECK, content=json.dumps(body), headers={"content-type": "application/json"}
    )
    error = response.json()["error"]
    assert 400 <= response.status_code < 500
    assert error["message"]
    assert code is None or error["code"] == code
    assert param is None or error["param"] == param


async def test_an_image_is_not_evaluated_and_not_allowed(client):
    row = (await client.post(CHECK, json={"messages": [IMAGE]})).json()
    assert (row["status"], row["action"], row["verdict"]) == ("not_evaluated", "block", "block")
