import pytest

from guardrail.errors import PromptError
from guardrail.pipeline.request import request
from guardrail.types import Message

TALK = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


def test_facts_are_counted():
    item = request("chat", TALK, tags=["a"], conversation="c")
    assert (item.facts.user_turns, item.facts.last_role, item.facts.tags, item.facts.conversation) == (
        2,
        "user",
        {"a"},
        "c",
    )


def test_a_string_is_one_user_message():
    assert request("check", "Hello").messages == (Message("user", "Hello"),)


def test_a_conversation_without_an_id_is_known_by_its_first_user_turn():
    assert request("chat", TALK).facts.conversation == request("chat", TALK[:2]).facts.conversation
    assert request("chat", TALK).facts.conversation != request("chat", "other").facts.conversation


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([{"type": "image_url", "image_url": {}}], "image_url"),
        ([{"type": "text", "text": "x"}, {"type": "audio"}], "audio"),
        ([{"type": "image", "text": "a caption"}], "image"),
        ([{"url": "x"}], "unknown"),
        ([7], "int"),
        (None, "NoneType"),
        (7, "int"),
    ],
)
def test_what_is_not_text_is_unreadable_with_its_type(content, reason):
    assert reason in (request("chat", [{"role": "user", "content": content}]).unreadable or "")


def test_tool_calls_are_unreadable():
    call = {"role": "assistant", "content": "x", "tool_calls": [{}]}
    assert "tool calls" in (request("chat", [call, {"role": "user", "content": "x"}]).unreadable or "")


@pytest.mark.parametrize(
    "messages", [[], "", " \n", [{"role": "user", "content": ""}], [{"content": "x"}], ["x"]]
)
def test_senseless_requests_are_errors(messages):
    with pytest.raises(PromptError):
        request("chat", messages)


def test_an_unpaired_surrogate_is_an_error_and_control_characters_are_not():
    with pytest.raises(PromptError, match="unpaired surrogate"):
        request("chat", "\ud800")
    assert request("chat", "a \x00 \u200b").messages[0].content == "a \x00 \u200b"
