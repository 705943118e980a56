"""LangChain as a client of `/v1/chat/completions` and `/v1/responses`."""

import pytest

pytest.importorskip("langchain_openai", reason="needs langchain-openai: `make test-clients` installs it")

from langchain_openai import ChatOpenAI

from guardrail.demo.prompts import TOUR

STOPS = {stop.expected: stop.messages for stop in TOUR}
REFUSED = ("block", "escalate")
SHORT = {"temperature": 0, "max_tokens": 16}


def model(server, **options):
    return ChatOpenAI(base_url=f"{server}/v1", model="demo", api_key="none", **SHORT, **options)


@pytest.mark.parametrize("action", STOPS)
def test_chats_are_the_guards(server, guard, action):
    asked = model(server)
    reply = asked.invoke(STOPS[action])
    streamed = "".join(part.text for part in asked.stream(STOPS[action]))
    assert reply.text == streamed == guard.chat(STOPS[action], **SHORT).text
    assert (reply.response_metadata["finish_reason"] == "content_filter") is (action in REFUSED)


@pytest.mark.parametrize("action", STOPS)
def test_responses_are_the_guards(server, guard, action):
    asked = model(server, use_responses_api=True)
    reply = asked.invoke(STOPS[action])
    streamed = "".join(_said(block) for part in asked.stream(STOPS[action]) for block in part.content)
    assert "".join(map(_said, reply.content)) == streamed == guard.chat(STOPS[action], **SHORT).text
    assert ("refusal" in {block["type"] for block in reply.content}) is (action in REFUSED)


def _said(block):
    return block.get("refusal") or block.get("text") or ""
