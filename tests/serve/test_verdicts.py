"""What responses say about the guard: headers, the field `guardrail`, and replies that are stopped midway."""

import json

import pytest
from serving import CRUEL, asking, chat, events
from tiny import guard as tiny_guard
from tiny import policy

from guardrail.audit import read
from guardrail.demo.prompts import TOUR
from guardrail.serve.app import create_app
from guardrail.serve.settings import ServerSettings
from guardrail.serve.verdict import Verdict
from guardrail.types import Decision, Timing

PATH = "/v1/chat/completions"
STOPS = {stop.expected: stop.messages for stop in TOUR}
REFUSAL = "No more of this."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("action", ["steer", "rephrase", "escalate", "block"])
async def test_what_was_done_is_in_headers_and_body(client, action, stream):
    response = await client.post(PATH, json=chat(STOPS[action], stream=stream))
    body = json.loads(events(response.text)[-2]) if stream else response.json()
    said, headers = body["guardrail"], response.headers
    assert said["action"] == headers["x-guardrail-action"] == action
    assert said["policy"] == headers["x-guardrail-policy"]
    assert said["audit_id"] == headers["x-guardrail-audit-id"]
    assert said["ticket_id"] == headers.get("x-guardrail-ticket-id")
    assert (said["ticket_id"] is not None) == (action == "escalate")
    finished = body["choices"][0]["finish_reason"]
    assert (finished == "content_filter") == (action in ("escalate", "block"))
    assert float(headers["x-guardrail-ms"]) >= 0


@pytest.mark.parametrize(
    ("otherwise", "outcome", "stage"),
    [("block", "blocked", "prompt"), ("allow", "answered", "prompt"), ("block", "blocked", "response")],
)
def test_what_took_over_from_an_escalation_that_failed_is_what_was_done(
    tmp_path, monkeypatch, otherwise, outcome, stage
):
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(tmp_path))
    keys = {"threshold": {"raw": -1e6}, "stage": stage}
    log = tmp_path / "log.jsonl"
    escalate = policy({"escalate": {"otherwise": otherwise}}, **keys)
    with tiny_guard(tmp_path, escalate, audit={"jsonl": str(log)}) as made:
        reply = made.chat("Hello", max_new_tokens=4)
    verdict = Verdict.of(reply)
    assert reply.outcome == outcome
    assert verdict.headers["x-guardrail-action"] == otherwise
    assert verdict.field(whole=False).action == otherwise, "a prompt that failed open is told of"
    assert verdict.field(whole=True).decisions[0].get("otherwise") == (
        otherwise if stage == "prompt" else None
    )
    if otherwise == "block":
        (record,) = read(log)
        decided = record.decision if stage == "prompt" else record.reply_decision
        assert (decided.action, decided.otherwise, decided.done) == ("escalate", "block", "block")


@pytest.mark.parametrize(
    ("fields", "headers"),
    [({"guardrail": {"decision": True}}, {}), ({}, {"x-guardrail-decision": "true"})],
)
async def test_the_whole_decision_is_there_on_request(client, fields, headers):
    response = await client.post(PATH, json=chat(CRUEL, **fields), headers=headers)
    (decision,) = response.json()["guardrail"]["decisions"]
    assert (decision["action"], decision["policy"], decision["status"]) == ("block", "no-malice", "evaluated")
    assert {score["policy"] for score in decision["scores"]} >= {"no-malice", "careful-facts"}
    plain = await client.post(PATH, json=chat(CRUEL))
    assert plain.json()["guardrail"]["decisions"] is None


async def test_a_system_or_developer_turn_and_earlier_turns_are_read(client):
    said = {"role": "assistant", "content": "Hello."}
    for first in ({"role": "developer", "content": CRUEL[0]["content"]}, CRUEL[0]):
        turns = [first, {"role": "user", "content": "Hello"}, said, CRUEL[1]]
        response = await client.post(PATH, json=chat(turns))
        assert response.headers["x-guardrail-action"] == "block"


@pytest.mark.parametrize(("prompt", "reply"), [("error", "evaluated"), ("evaluated", "error")])
def test_an_error_that_policies_let_pass_never_looks_evaluated(prompt, reply):
    decisions = [Decision(status=prompt)]
    verdict = Verdict("id", decisions, Timing(), Decision(status=reply, stage="response"))
    assert verdict.headers["x-guardrail-action"] == "allow"
    assert verdict.headers["x-guardrail-status"] == verdict.field(whole=False).status == "error"


@pytest.fixture
def stopping(tmp_path):
    """A model whose replies a policy stops."""
    rule = policy("block", {"raw": -1e6}, id="replies", stage="response", message=REFUSAL)
    with tiny_guard(tmp_path, rule) as made:
        yield made


async def test_a_stream_that_is_stopped_ends_with_the_message(stopping):
    async with asking(create_app(stopping, ServerSettings())) as http:
        plain = await http.post(PATH, json=chat(max_tokens=12))
        stream = await http.post(PATH, json=chat(max_tokens=12, stream=True, guardrail={"decision": True}))
    chunks = [json.loads(one) for one in events(stream.text)[:-1]]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text.endswith("\n\n" + REFUSAL)
    assert plain.json()["choices"][0]["message"]["content"] == REFUSAL
    last = chunks[-1]
    assert last["choices"][0]["finish_reason"] == "content_filter"
    assert plain.json()["choices"][0]["finish_reason"] == "content_filter"
    assert (last["guardrail"]["action"], last["guardrail"]["policy"]) == ("block", "replies")
    assert last["guardrail"]["decisions"][-1]["reply_decision"]["token"] == 1
    # the decision on the prompt, which is all that was known when the response began
    assert stream.headers["x-guardrail-action"] == "allow"
    assert plain.headers["x-guardrail-action"] == "block"


async def test_a_stream_that_is_stopped_ends_with_an_error_if_the_settings_say_so(stopping):
    async with asking(create_app(stopping, ServerSettings(blocks="error"))) as http:
        stream = await http.post(PATH, json=chat(max_tokens=12, stream=True))
    *chunks, last = [json.loads(one) for one in events(stream.text)]
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
    assert REFUSAL not in "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert (last["error"]["code"], last["error"]["message"]) == ("guardrail_blocked", REFUSAL)
    assert last["error"]["guardrail"]["policy"] == "replies"
