"""LangChain and the OpenAI Agents SDK as clients of `/v1/chat/completions`."""

import pytest

from guardrail.demo.prompts import TOUR

STOPS = {stop.expected: stop.messages for stop in TOUR}
SHORT = {"temperature": 0, "max_tokens": 16}


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
    assert (reply.response_metadata["finish_reason"] == "content_filter") is (action in ("block", "escalate"))


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
