"""The same at every door: what becomes of actions, errors and keys."""

import pytest
import tiny
from doors import ALLOWED, LITELLM, PERSON, STEER, Plugin, answers, doors, gateway_reads, litellm, webhook

from guardrail.serve.keys import Key, sha256


@pytest.mark.parametrize(
    "action", [{"steer": STEER | {"otherwise": "allow"}}, {"rephrase": {"otherwise": "allow"}}]
)
async def test_what_policies_let_pass_instead_passes_and_says_so(tmp_path, action):
    async with doors(tmp_path, tiny.policy(action)) as http:
        assert await answers(http) == ("allow", "NONE", "pass")
        said = (await http.post(LITELLM, json=litellm(ALLOWED))).json()["guardrail"]
    assert (said["verdict"], said["action"], said["reader_model"]) == ("pass", "allow", "tiny")
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


async def test_who_comes_back_with_an_approved_ticket_passes_once(client, guard):
    headers = {"x-guardrail-ticket": "[present]", "X-Guardrail-Conversation": "c"}
    refused = (await client.post(LITELLM, json=litellm(PERSON, request_headers=headers))).json()
    ticket, policy = (refused["guardrail"][name] for name in ("ticket_id", "policy"))
    guard.tickets.resolve(ticket, approve=True, resolver="ann")
    again = litellm(PERSON, request_headers=headers | {"x-guardrail-ticket": ticket})
    answers = [(await client.post(LITELLM, json=again)).json() for _ in range(2)]
    assert [answer["action"] for answer in answers] == ["NONE", "BLOCKED"]
    assert answers[0]["guardrail"]["verdict"] == "pass"
    assert [answer["guardrail"]["lifted"] for answer in answers] == [[policy], []]
    ticket = answers[1]["guardrail"]["ticket_id"]
    guard.tickets.resolve(ticket, approve=True, resolver="ann")
    passed = await client.post("/request", json=webhook(PERSON), headers={"x-guardrail-ticket": ticket})
    assert gateway_reads(passed.json()) == "pass"
