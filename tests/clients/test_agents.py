"""The OpenAI Agents SDK as a client of `/v1/chat/completions` and `/v1/responses`."""

import pytest

pytest.importorskip("agents", reason="needs openai-agents: `make test-clients` installs it")

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    set_tracing_disabled,
)
from agents.exceptions import ModelRefusalError
from openai import AsyncOpenAI

from guardrail.demo.prompts import TOUR

STOPS = {stop.expected: stop.messages for stop in TOUR}
WHOLE = {"temperature": 0, "max_tokens": 200}


@pytest.fixture
async def client(server):
    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=f"{server}/v1", api_key="none") as client:
        yield client


async def said(model, messages):
    """The reply, plain and streamed."""
    agent = Agent("test", model=model, model_settings=ModelSettings(**WHOLE))
    plain = await Runner.run(agent, messages)
    stream = Runner.run_streamed(agent, messages)
    async for _ in stream.stream_events():
        pass
    return plain.final_output, stream.final_output


@pytest.mark.parametrize("action", STOPS)
async def test_chats_are_the_guards(client, guard, action):
    text = guard.chat(STOPS[action], **WHOLE).text
    assert await said(OpenAIChatCompletionsModel("demo", client), STOPS[action]) == (text, text)


@pytest.mark.parametrize("action", ["allow", "steer", "rephrase"])
async def test_responses_are_the_guards(client, guard, action):
    text = guard.chat(STOPS[action], **WHOLE).text
    assert await said(OpenAIResponsesModel("demo", client), STOPS[action]) == (text, text)


@pytest.mark.parametrize("action", ["block", "escalate"])
async def test_a_refusal_in_a_response_is_an_error_of_the_sdk(client, guard, action):
    with pytest.raises(ModelRefusalError, match=guard.chat(STOPS[action], **WHOLE).text):
        await said(OpenAIResponsesModel("demo", client), STOPS[action])
