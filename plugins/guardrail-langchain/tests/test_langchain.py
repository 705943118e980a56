"""The middleware in a real agent; the model that it guards is LangChain's own for tests."""

import pytest

pytest.importorskip("langchain", reason="needs langchain: `make test-clients` installs it")

from guardrail_langchain import GuardrailMiddleware
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage

from guardrail import Guard, GuardClosed
from guardrail.demo.prompts import TOUR
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.testing import hand_made_vectors, tiny_model, tiny_tokenizer

STOPS = {stop.expected: stop.messages for stop in TOUR}
PASSES = {"allow"}


class Model(GenericFakeChatModel):
    def bind_tools(self, tools, **options):
        return self


@pytest.fixture(scope="module")
def guard():
    with Guard.from_pretrained("demo") as guard:
        yield guard


def agent(guard, *replies, tools=(), **options):
    answers = iter([AIMessage(reply) if isinstance(reply, str) else reply for reply in replies or ["Fine."]])
    return create_agent(Model(messages=answers), tools, middleware=[GuardrailMiddleware(guard, **options)])


def asked(guard, messages, **options):
    return agent(guard, **options).invoke({"messages": messages})


@pytest.mark.parametrize("action", STOPS)
def test_the_model_answers_only_what_passes(guard, action):
    last = asked(guard, STOPS[action])["messages"][-1]
    ruling = last.response_metadata["guardrail"]
    assert (ruling["action"], ruling["passes"]) == (action, action in PASSES)
    assert (last.content == "Fine.") is (action in PASSES)
    assert (ruling["ticket_id"] is not None) is (action == "escalate")


async def test_it_is_the_same_without_blocking_the_event_loop(guard):
    allowed = await agent(guard).ainvoke({"messages": STOPS["allow"]})
    blocked = await agent(guard).ainvoke({"messages": STOPS["block"]})
    assert [found["messages"][-1].content for found in (allowed, blocked)] == [
        "Fine.",
        "I can't help with that.",
    ]
    assert allowed["guardrail"]["status"] == "evaluated"


def test_a_blocked_stream_has_no_token_of_the_model(guard):
    parts = list(agent(guard).stream({"messages": STOPS["block"]}, stream_mode="messages"))
    assert [part.content for part, _ in parts] == ["I can't help with that."]


def test_the_agents_system_prompt_is_read_if_it_is_given(guard):
    system, user = STOPS["block"]
    assert asked(guard, [user], system_prompt=system["content"])["guardrail"]["action"] == "block"


LISTED = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.tool_calls }}\n{% endfor %}"


@pytest.fixture
def after_tools(tmp_path):
    """A guard that blocks what comes after a tool's result. The built-in model's template knows no tools."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    mark = fingerprint(model, tokenizer, LISTED, {})
    hand_made_vectors(("evil",), mark).save(tmp_path / "vectors.safetensors")
    rule = {"id": "tools", "trait": "evil", "layer": 2, "threshold": {"raw": -1e6}, "action": "block"}
    rules = {
        "version": 1,
        "vectors": str(tmp_path / "vectors.safetensors"),
        "policies": [rule | {"when": {"last_role": "tool"}}],
    }
    with Guard(model, tokenizer, rules, chat_template=LISTED) as made:
        yield made


def test_what_a_tool_returns_is_read_before_the_model_sees_it(after_tools):
    def look() -> str:
        """Look something up."""
        return "found"

    asks = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])
    found = agent(after_tools, asks, "Fine.", tools=[look]).invoke({"messages": STOPS["allow"]})
    *_, tool, last = found["messages"]
    assert isinstance(tool, ToolMessage)
    assert last.response_metadata["guardrail"]["policy"] == "tools"
    assert last.content != "Fine."


def test_an_image_is_not_evaluated_and_does_not_pass(guard):
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}]}
    ruling = asked(guard, [image])["guardrail"]
    assert (ruling["status"], ruling["passes"]) == ("not_evaluated", False)


def test_without_a_verdict_the_run_ends():
    with Guard.from_pretrained("demo") as closed:
        pass
    with pytest.raises(GuardClosed):
        asked(closed, STOPS["allow"])
