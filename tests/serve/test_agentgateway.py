"""The guardrail webhook of agentgateway and kgateway."""

import json

import pytest
from doors import ALLOWED, BAD_PROMPTS, ELSEWHERE, IMAGE, JSON, STOPS, gateway_reads, texts, webhook


@pytest.mark.parametrize("action", STOPS)
async def test_a_gateway_passes_or_rejects(client, action):
    answer = (await client.post("/request", json=webhook(STOPS[action]))).json()
    passes = ELSEWHERE[action] == "allow"
    assert gateway_reads(answer) == ("pass" if passes else "reject")
    assert "reader_model: demo" in answer["action"]["reason"]
    assert not any(text in answer["action"]["reason"] for text in texts(STOPS[action]))
    if not passes:
        error = json.loads(answer["action"]["body"])["error"]
        assert error["code"] == ("guardrail_escalated" if action == "escalate" else "guardrail_blocked")
        assert answer["action"]["status_code"] == 400
        assert ("(ticket " in error["message"]) is (action == "escalate")


@pytest.mark.parametrize("prompt", BAD_PROMPTS.values(), ids=BAD_PROMPTS)
async def test_a_gateways_prompt_that_cannot_be_read_is_rejected(client, prompt):
    body = json.dumps(webhook(prompt))
    response = await client.post("/request", content=body, headers=JSON)
    assert gateway_reads(response.json()) == "reject"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/request", {}),
        ("/request", {"body": "Hello"}),
        ("/request", {"body": {"messages": "Hello"}}),
        ("/request", {"body": {"messages": [{"role": "user", "content": [IMAGE]}]}}),
        ("/request", {"body": {"messages": [{"content": "Hello"}]}}),
        ("/response", {}),
        ("/response", {"body": {"choices": []}}),
        ("/response", {"body": {"choices": [{"message": {"role": "assistant", "content": None}}]}}),
        ("/response", {"body": {"choices": [{"message": {"role": "assistant", "content": "Paris."}}]}}),
        ("/response", {"body": {"choices": [{"message": {"role": "model", "content": "Paris."}}]}}),
        ("/response", {"body": {"choices": [{"message": {"role": "user", "content": "Paris."}}]}}),
    ],
)
async def test_what_is_no_verdict_is_a_failure_for_the_gateway(client, path, body):
    answer = (await client.post(path, json=body)).json()
    assert gateway_reads(answer) in (None, "reject")
    assert answer.get("error") or answer["action"]["body"]


async def test_fields_that_no_version_has_are_content_that_cannot_be_read(client):
    body = {"body": {"messages": ALLOWED, "attachments": ["I want to hurt them badly."], "empty": []}}
    answer = (await client.post("/request", json=body)).json()
    assert gateway_reads(answer) == "reject"
    assert "`request_attachments` of a message cannot be read" in answer["action"]["reason"]
    del body["body"]["attachments"]
    assert gateway_reads((await client.post("/request", json=body)).json()) == "pass"


async def test_raw_messages_are_refused_in_a_way_that_a_gateway_cannot_take_for_a_pass(client):
    answer = (await client.post("/request", json={"messages": ALLOWED, "model": "gpt-4"})).json()
    assert answer["messages"] == []
    assert "raw" in answer["error"]["message"]
