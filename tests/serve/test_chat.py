"""`/v1/chat/completions`: replies, streams, and what a block looks like."""

import json

import pytest
from serving import CRUEL, HARMLESS, chat, events

PATH = "/v1/chat/completions"


async def test_an_allowed_reply_is_the_guards_own(client, guard):
    response = await client.post(PATH, json=chat())
    expected = guard.chat(HARMLESS, temperature=0, max_tokens=8)
    (choice,) = response.json()["choices"]
    assert response.status_code == 200
    assert choice["message"] == {"role": "assistant", "content": expected.text, "refusal": None}
    assert response.headers["x-guardrail-action"] == "allow"
    assert response.headers["x-guardrail-status"] == "evaluated"
    assert "guardrail" not in response.json()


async def test_a_streamed_reply_has_the_same_text(client):
    plain = (await client.post(PATH, json=chat())).json()
    response = await client.post(PATH, json=chat(stream=True, stream_options={"include_usage": True}))
    *chunks, done = events(response.text)
    first, *rest, last, usage = map(json.loads, chunks)
    assert done == "[DONE]"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in rest)
    assert text == plain["choices"][0]["message"]["content"]
    assert last["choices"][0]["finish_reason"] == plain["choices"][0]["finish_reason"]
    assert usage["choices"] == []
    assert usage["usage"] == plain["usage"]
    assert all(chunk["usage"] is None for chunk in (first, *rest, last))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_block_is_a_completion_that_says_so(client, stream):
    response = await client.post(PATH, json=chat(CRUEL, stream=stream))
    if stream:
        _, said, last = map(json.loads, events(response.text)[:-1])
        text, finish = said["choices"][0]["delta"]["content"], last["choices"][0]["finish_reason"]
        body = last
    else:
        body = response.json()
        text, finish = body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]
    assert (response.status_code, text, finish) == (200, "I can't help with that.", "content_filter")
    assert body["guardrail"]["action"] == response.headers["x-guardrail-action"] == "block"
    assert body["guardrail"]["audit_id"] == response.headers["x-guardrail-audit-id"]
    assert response.headers["x-guardrail-policy"] == "no-malice"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_block_is_an_error_if_the_settings_say_so(serving, stream):
    async with serving(blocks="error") as http:
        response = await http.post(PATH, json=chat(CRUEL, stream=stream))
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "guardrail_blocked")
    assert error["message"] == "I can't help with that."
    assert error["guardrail"]["policy"] == response.headers["x-guardrail-policy"] == "no-malice"
