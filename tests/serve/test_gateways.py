"""Doors for other models' traffic: `/v1/guard/check`, LiteLLM's guardrail API, agentgateway's webhook."""

import json
from contextlib import asynccontextmanager

import httpx
import pytest
import tiny

from guardrail import Guard
from guardrail.demo.prompts import TOUR
from guardrail.plugins.hookspecs import hookimpl
from guardrail.serve.app import create_app
from guardrail.serve.keys import Key, sha256
from guardrail.serve.settings import ServerSettings
from guardrail.testing import MemoryAudit

CHECK, LITELLM = "/v1/guard/check", "/beta/litellm_basic_guardrail_api"
STOPS = {stop.expected: stop.messages for stop in TOUR}
ALLOWED, BLOCKED, PERSON = STOPS["allow"], STOPS["block"], STOPS["escalate"]
ELSEWHERE = {
    "allow": "allow",
    "steer": "block",
    "rephrase": "block",
    "escalate": "escalate",
    "block": "block",
}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}]}
JSON = {"content-type": "application/json"}
STEER = {"operator": "add", "coefficient": -1.0}
BAD_PROMPTS = {
    "empty": [{"role": "user", "content": ""}],
    "unknown role": [{"role": "wizard", "content": "Hello"}],
    "too long": [{"role": "user", "content": "word " * 20_000}],
}


def texts(messages):
    return [message["content"] for message in messages if isinstance(message["content"], str)]


def litellm(messages=None, **fields):
    """What LiteLLM sends for a chat."""
    chat = {"structured_messages": messages, "texts": texts(messages)} if messages else {}
    return {"input_type": "request", "request_data": {}, **chat, **fields}


def webhook(messages):
    return {"body": {"messages": messages}}


# --- /v1/guard/check ----------------------------------------------------------------------------------


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


# --- LiteLLM ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", STOPS)
async def test_litellm_hears_whether_the_prompt_passes(client, guard, action):
    answer = (await client.post(LITELLM, json=litellm(STOPS[action]))).json()
    passes = ELSEWHERE[action] == "allow"
    assert answer["action"] == ("NONE" if passes else "BLOCKED")
    assert answer["reader_model"] == answer["guardrail"]["reader_model"] == "demo"
    assert answer["guardrail"]["action"] == action
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
        [litellm(ALLOWED)],
        "Hello",
    ],
)
async def test_what_is_no_request_of_litellm_is_a_client_error(client, body):
    response = await client.post(LITELLM, json=body)
    assert response.status_code == 400
    assert "action" not in response.json()
    assert response.json()["error"]["message"]


# --- agentgateway and kgateway ------------------------------------------------------------------------


def gateway_reads(answer):
    """What agentgateway makes of an answer: the first action whose fields it finds. None is a failure."""
    action = answer.get("action")
    if not isinstance(action, dict):
        return None
    body = action.get("body")
    if isinstance(body, dict) and ("messages" in body or "choices" in body):
        return "mask"
    return "reject" if isinstance(body, str) and isinstance(action.get("status_code"), int) else "pass"


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
    ],
)
async def test_what_is_no_verdict_is_a_failure_for_the_gateway(client, path, body):
    answer = (await client.post(path, json=body)).json()
    assert gateway_reads(answer) in (None, "reject")
    assert answer.get("error") or answer["action"]["body"]


async def test_raw_messages_are_refused_in_a_way_that_a_gateway_cannot_take_for_a_pass(client):
    answer = (await client.post("/request", json={"messages": ALLOWED, "model": "gpt-4"})).json()
    assert answer["messages"] == []
    assert "raw" in answer["error"]["message"]


# --- other policies and failures ----------------------------------------------------------------------


@asynccontextmanager
async def doors(folder, *rules, **keys):
    """A client of a server whose model has these policies."""
    with tiny.guard(folder, *rules, **keys) as made:
        transport = httpx.ASGITransport(create_app(made, ServerSettings(model="tiny")), False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield http


async def answers(http, messages=ALLOWED):
    """What each door says."""
    check = await http.post(CHECK, json={"messages": messages})
    call = await http.post(LITELLM, json=litellm(messages))
    hook = await http.post("/request", json=webhook(messages))
    return check.json().get("verdict"), call.json().get("action"), gateway_reads(hook.json())


@pytest.mark.parametrize(
    "action", [{"steer": STEER | {"otherwise": "allow"}}, {"rephrase": {"otherwise": "allow"}}]
)
async def test_what_policies_let_pass_instead_passes_and_says_so(tmp_path, action):
    async with doors(tmp_path, tiny.policy(action)) as http:
        assert await answers(http) == ("allow", "NONE", "pass")
        said = (await http.post(LITELLM, json=litellm(ALLOWED))).json()["guardrail"]
    assert (said["verdict"], said["action"], said["reader_model"]) == ("pass", next(iter(action)), "tiny")
    assert f"test: lifted after {next(iter(action))}" in said["warnings"]


async def test_a_shadow_passes_and_says_what_it_would_do(tmp_path):
    async with doors(tmp_path, tiny.policy(mode="shadow"), allow_empty=True) as http:
        assert await answers(http) == ("allow", "NONE", "pass")
        said = (await http.post(LITELLM, json=litellm(ALLOWED))).json()["guardrail"]
    assert (said["action"], said["would_action"]) == ("allow", "block")


async def test_where_no_policy_applies_the_pass_says_not_evaluated(tmp_path):
    async with doors(tmp_path, tiny.policy(when={"tags": ["other"]})) as http:
        assert await answers(http) == ("allow", "NONE", "pass")
        passed = (await http.post("/request", json=webhook(ALLOWED))).json()
        tagged = await http.post("/request", json=webhook(ALLOWED), headers={"x-guardrail-tags": "other"})
    assert "status: not_evaluated" in passed["action"]["reason"]
    assert gateway_reads(tagged.json()) == "reject"


class Plugin:
    """A scorer that fails, and an audit sink that fails if it is told to."""

    name = "broken"

    def __init__(self, failing=False):
        self.audit = MemoryAudit(failing)

    def score(self, messages):
        raise ValueError("secret")

    @hookimpl
    def guardrail_scorers(self):
        return [self]

    @hookimpl
    def guardrail_audit_sinks(self):
        return [self.audit]


@pytest.mark.parametrize(
    ("on_error", "expected"),
    [("block", ("block", "BLOCKED", "reject")), ("allow", ("allow", "NONE", "pass"))],
)
async def test_an_error_of_the_guard_is_what_on_error_says(tmp_path, on_error, expected):
    rule = tiny.policy(threshold=1.0, trait="broken", on_error=on_error)
    async with doors(tmp_path, rule, options={"plugins": [Plugin()]}) as http:
        assert await answers(http) == expected
        passed = (await http.post("/request", json=webhook(ALLOWED))).json()
    assert "status: error" in passed["action"]["reason"]
    assert "secret" not in str(passed)


async def test_without_an_audit_record_there_is_no_verdict(tmp_path):
    async with doors(
        tmp_path, tiny.policy(threshold=tiny.NEVER), options={"plugins": [Plugin(True)]}
    ) as http:
        assert await answers(http) == (None, None, None)
        assert (await http.post(LITELLM, json=litellm(ALLOWED))).status_code == 500


async def test_a_reply_that_policies_allow_to_be_read_gets_a_verdict(tmp_path):
    reply = {"body": {"choices": [{"message": {"role": "Assistant", "content": "Paris."}}]}}
    call = litellm(texts=["Paris."], input_type="response")
    lenient = {"unsupported_input": "allow"}
    async with doors(tmp_path, tiny.policy(threshold=tiny.NEVER, **lenient)) as http:
        assert gateway_reads((await http.post("/response", json=reply)).json()) == "pass"
        said = (await http.post(LITELLM, json=call)).json()
        assert said["action"] == "NONE"
        assert "evaluated all the same" in str(said["guardrail"]["warnings"])
    async with doors(tmp_path, tiny.policy(**lenient)) as http:
        assert gateway_reads((await http.post("/response", json=reply)).json()) is None
        assert (await http.post(LITELLM, json=call)).json()["action"] == "BLOCKED"


@pytest.mark.parametrize("rights", [("ask",), ("review",)])
async def test_the_doors_are_for_keys_that_may_ask(serving, rights):
    async with serving(keys=(Key(name="gateway", sha256=sha256("secret"), rights=rights),)) as http:
        assert await answers(http) == (None, None, None)
        http.headers["x-api-key"] = "secret"
        expected = ("allow", "NONE", "pass") if rights == ("ask",) else (None, None, None)
        assert await answers(http) == expected
