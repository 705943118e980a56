"""LangChain and the OpenAI Agents SDK as clients of `/v1/chat/completions` and `/v1/responses`."""

import pytest

from guardrail.demo.prompts import TOUR

STOPS = {stop.expected: stop.messages for stop in TOUR}
REFUSED = ("block", "escalate")
SHORT = {"temperature": 0, "max_tokens": 16}
WHOLE = SHORT | {"max_tokens": 200}


def expected(guard, action):
    """What the guard itself replies."""
    return guard.chat(STOPS[action], **SHORT).text


@pytest.mark.parametrize("action", STOPS)
def test_langchain_gets_the_guards_reply(server, guard, action):
    pytest.importorskip("langchain_openai", reason="needs langchain-openai: `make test-clients` installs it")
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(base_url=f"{server}/v1", model="demo", api_key="none", **SHORT)
    reply = model.invoke(STOPS[action])
    streamed = "".join(str(part.content) for part in model.stream(STOPS[action]))
    assert reply.content == streamed == expected(guard, action)
    assert (reply.response_metadata["finish_reason"] == "content_filter") is (action in REFUSED)


@pytest.mark.parametrize("action", STOPS)
async def test_the_agents_sdk_gets_the_guards_reply(server, guard, action):
    pytest.importorskip("agents", reason="needs openai-agents: `make test-clients` installs it")
    from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=f"{server}/v1", api_key="none") as client:
        agent = Agent(
            "test",
            model=OpenAIChatCompletionsModel("demo", client),
            model_settings=ModelSettings(**SHORT),
        )
        plain = await Runner.run(agent, STOPS[action])
        stream = Runner.run_streamed(agent, STOPS[action])
        async for _ in stream.stream_events():
            pass
    assert plain.final_output == stream.final_output == expected(guard, action)


@pytest.mark.parametrize("action", STOPS)
def test_langchain_gets_it_from_responses(server, guard, action):
    pytest.importorskip("langchain_openai", reason="needs langchain-openai: `make test-clients` installs it")
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(base_url=f"{server}/v1", model="demo", api_key="none", use_responses_api=True, **SHORT)
    reply = model.invoke(STOPS[action])
    streamed = list(model.stream(STOPS[action]))
    said = "".join(_said(block) for part in streamed for block in part.content)
    assert "".join(map(_said, reply.content)) == said == expected(guard, action)
    assert ("refusal" in {block["type"] for block in reply.content}) is (action in REFUSED)


def _said(block):
    return block.get("refusal") or block.get("text") or ""


@pytest.mark.parametrize("action", STOPS)
async def test_the_agents_sdk_gets_it_from_responses(server, guard, action):
    """A refusal is an error of this SDK, and so is a stream that ends at the token limit."""
    pytest.importorskip("agents", reason="needs openai-agents: `make test-clients` installs it")
    from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, set_tracing_disabled
    from agents.exceptions import ModelRefusalError
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    text = guard.chat(STOPS[action], **WHOLE).text
    async with AsyncOpenAI(base_url=f"{server}/v1", api_key="none") as client:
        agent = Agent(
            "test", model=OpenAIResponsesModel("demo", client), model_settings=ModelSettings(**WHOLE)
        )
        if action in REFUSED:
            with pytest.raises(ModelRefusalError, match=text):
                await Runner.run(agent, STOPS[action])
            return
        plain = await Runner.run(agent, STOPS[action])
        stream = Runner.run_streamed(agent, STOPS[action])
        async for _ in stream.stream_events():
            pass
    assert plain.final_output == stream.final_output == text
