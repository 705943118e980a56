"""LiteLLM's generic guardrail API."""

import json

import httpx
import pytest
import tiny
from doors import (
    ALLOWED,
    BAD_PROMPTS,
    BLOCKED,
    ELSEWHERE,
    IMAGE,
    JSON,
    LITELLM,
    PERSON,
    STOPS,
    Plugin,
    doors,
    litellm,
    texts,
)

from guardrail import Guard
from guardrail.serve.app import create_app
from guardrail.serve.settings import ServerSettings


@pytest.mark.parametrize("action", STOPS)
async def test_litellm_hears_whether_the_prompt_passes(client, guard, action):
    answer = (await client.post(LITELLM, json=litellm(STOPS[action]))).json()
    passes = ELSEWHERE[action] == "allow"
    assert answer["action"] == ("NONE" if passes else "BLOCKED")
    assert answer["reader_model"] == answer["guardrail"]["reader_model"] == "demo"
    assert answer["guardrail"]["action"] == ELSEWHERE[action]
    assert ("blocked_reason" in answer) is not passes
    # nothing to write back: LiteLLM would replace the messages
    assert not {"texts", "structured_messages", "images", "tools"} & set(answer)


async def test_an_escalation_names_the_ticket(client, guard):
    answer = (await client.post(LITELLM, json=litellm(PERSON))).json()
    ticket = guard.ticket(answer["guardrail"]["ticket_id"])
    assert ticket.state == "pending"
    assert answer["blocked_reason"] == f"A person will look at this. (ticket {ticket.id})"


@pytest.mark.parametrize(
    "fields",
    [
        litellm(texts=[BLOCKED[1]["content"]]),
        litellm(texts=["Hello", BLOCKED[1]["content"]]),
        litellm(ALLOWED, texts=["Hello", " ".join(texts(BLOCKED))]),
        litellm(images=["https://x.org/a.png"]),
        litellm(ALLOWED, images=["https://x.org/a.png"]),
        litellm([IMAGE]),
        litellm(ALLOWED, documents=["a field of a later version"]),
        litellm(ALLOWED, tools=[{"type": "function", "function": {"name": "f"}}]),
        litellm(ALLOWED, tools=[{"type": "code_interpreter"}]),
    ],
)
async def test_everything_in_the_request_is_read_or_refused(client, fields):
    assert (await client.post(LITELLM, json=fields)).json()["action"] == "BLOCKED"


async def test_calls_of_tools_that_are_no_list_are_refused(client):
    turns = [{"role": "user", "content": "Hello", "tool_calls": 5}]
    answer = (await client.post(LITELLM, json=litellm(structured_messages=turns, tool_calls=[{}]))).json()
    assert answer["action"] == "BLOCKED"


async def test_who_asks_is_told_what_could_not_be_read(client):
    answer = (await client.post(LITELLM, json=litellm(ALLOWED, images=["https://x.org/a.png"]))).json()
    assert "`request_images` of a message cannot be read" in answer["blocked_reason"]
    assert answer["guardrail"]["status"] == "not_evaluated"


async def test_policies_decide_on_tools_that_the_readers_template_does_not_know(tmp_path):
    body = litellm(ALLOWED, tools=[{"type": "function", "function": {"name": "f"}}, {"type": "other"}])
    rule = tiny.policy(threshold=tiny.NEVER, unsupported_input="allow")
    async with doors(tmp_path, rule) as http:
        said = (await http.post(LITELLM, json=body)).json()
    assert said["action"] == "NONE"
    assert "`request_tools` of a message cannot be read" in str(said["guardrail"]["warnings"])


async def test_tools_are_read_by_a_template_that_knows_them(tmp_path):
    template = (
        "{{ tools | tojson if tools }}{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    )
    tool = {"type": "function", "function": {"name": "forecast", "parameters": {}}}
    model = tiny.tiny_model()
    tiny.write_vectors(tmp_path, model, template=template)
    rules = tiny.policies(tmp_path, tiny.policy(threshold=tiny.NEVER))
    with Guard(model, tiny.TOKENIZER, rules, plugins=[kept := Plugin()], chat_template=template) as made:
        transport = httpx.ASGITransport(create_app(made, ServerSettings()))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            plain = (await http.post(LITELLM, json=litellm(ALLOWED))).json()
            tooled = (await http.post(LITELLM, json=litellm(ALLOWED, tools=[tool]))).json()
    assert (plain["action"], tooled["action"]) == ("NONE", "NONE")
    lengths = [record.prompt_tokens for record in kept.audit.records.values()]
    assert lengths[0] < lengths[1]


async def test_fields_that_say_nothing_are_no_content(client):
    fields = {"images": [], "tools": [], "tool_calls": None, "documents": [], "litellm_version": "1.108.7"}
    fields |= {"request_headers": {"authorization": "[present]"}, "model": "gpt-4", "litellm_call_id": "c"}
    assert (await client.post(LITELLM, json=litellm(ALLOWED, **fields))).json()["action"] == "NONE"


async def test_a_reply_of_another_model_is_not_evaluated_and_blocked(client):
    answer = (await client.post(LITELLM, json=litellm(texts=["Paris."], input_type="response"))).json()
    assert (answer["action"], answer["guardrail"]["status"]) == ("BLOCKED", "not_evaluated")
    assert "reply" in answer["guardrail"]["error"]


@pytest.mark.parametrize("prompt", BAD_PROMPTS.values(), ids=BAD_PROMPTS)
async def test_a_prompt_that_cannot_be_read_is_blocked_whatever_litellm_does_on_errors(client, prompt):
    body = json.dumps(litellm(prompt))
    response = await client.post(LITELLM, content=body, headers=JSON)
    assert (response.status_code, response.json()["action"]) == (200, "BLOCKED")
    assert response.json()["blocked_reason"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input_type": "request", "request_data": {}},
        litellm(texts=[]),
        litellm(texts="Hello"),
        litellm(texts=[5]),
        litellm(ALLOWED, input_type="both"),
        litellm(ALLOWED, structured_messages={"role": "user"}),
        litellm(ALLOWED, structured_messages=["Hello"]),
        litellm(structured_messages=[{"role": "user", "tool_calls": 5}], tool_calls=5),
        [litellm(ALLOWED)],
        "Hello",
    ],
)
async def test_what_is_no_request_of_litellm_is_a_client_error(client, body):
    response = await client.post(LITELLM, json=body)
    assert response.status_code == 400
    assert "action" not in response.json()
    assert response.json()["error"]["message"]
