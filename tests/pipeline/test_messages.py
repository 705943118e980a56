"""What a message carries is understood, or said to be unreadable; nothing is dropped in silence."""

import hashlib
import json

import pytest

from guardrail.errors import PromptError
from guardrail.files.records import messages_from_json, messages_to_json, prompt_sha256
from guardrail.pipeline.request import request
from guardrail.types import Message, ToolCall

USER = {"role": "user", "content": "Hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
TALK = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "rain"},
]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    "key", ["content_blocks", "audio", "images", "function_call", "reasoning_content", "anything"]
)
def test_a_key_that_is_not_understood_is_unreadable(key):
    assert request("chat", [{**USER, key: ["x"]}]).unreadable == f"`{key}` of a message cannot be read"


@pytest.mark.parametrize("empty", [None, False, "", [], {}])
def test_empty_keys_as_other_libraries_write_them_are_ignored(empty):
    found = request("chat", [{**USER, "audio": empty, "refusal": empty}])
    assert (found.unreadable, found.messages) == (None, (Message("user", "Hello"),))


def test_a_part_with_more_than_text_is_unreadable():
    part = {"type": "text", "text": "x", "image": "data:"}
    assert "text with `image`" in (request("chat", [{"role": "user", "content": [part]}]).unreadable or "")


def test_tool_calls_and_their_answers_are_read():
    found = request("chat", TALK, tools=[TOOL])
    assert found.unreadable is None
    assert found.messages[1] == Message("assistant", "", (ToolCall("c1", "weather", '{"city": "Oslo"}'),))
    assert found.messages[2] == Message("tool", "rain", (), "c1", "weather")
    assert found.tools == (TOOL,)


def test_messages_are_the_same_after_they_were_written_and_read():
    messages = request("chat", TALK).messages
    assert messages_from_json(json.loads(json.dumps(messages_to_json(messages)))) == messages
    assert request("chat", messages).messages == messages


def test_everything_that_a_message_carries_is_in_its_hash():
    first, second, third = request("chat", TALK).messages
    other = ToolCall("c1", "weather", '{"city": "Rome"}')
    variants = [
        [first, second, third],
        [first, Message("assistant", "", (other,)), third],
        [first, Message("assistant", ""), third],
        [first, second, Message("tool", "rain", (), "c2", "weather")],
        [first, second, Message("tool", "rain", (), "c1", "news")],
    ]
    hashes = {prompt_sha256(messages) for messages in variants} | {prompt_sha256(variants[0], [TOOL])}
    assert len(hashes) == 6


def test_the_hash_of_plain_messages_is_that_of_older_records():
    known = hashlib.sha256(b'[["user", "Hello"]]').hexdigest()
    assert prompt_sha256([Message("user", "Hello")]) == known


@pytest.mark.parametrize(
    "calls",
    [
        [{}],
        "weather",
        [{"function": {"arguments": "{}"}}],
        [{"type": "custom", "custom": {"name": "x"}}],
        [{**CALL, "extra_content": {"x": 1}}],
        [{"function": {"name": "x", "arguments": {1, 2}}}],
        7,
    ],
)
def test_tool_calls_of_another_form_are_refused(calls):
    with pytest.raises(PromptError):
        request("chat", [{"role": "assistant", "content": "", "tool_calls": calls}, USER])


@pytest.mark.parametrize(
    "tools", [[{}], "weather", [lambda: None], [{"type": "function", "name": "weather"}]]
)
def test_tools_of_another_form_are_refused(tools):
    with pytest.raises(PromptError, match="tool"):
        request("chat", [USER], tools=tools)


def test_arguments_may_be_an_object_as_templates_have_them():
    call = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    (_, found, *_) = request("chat", [USER, {"role": "assistant", "tool_calls": [call]}, *TALK[2:]]).messages
    assert found.tool_calls == (ToolCall("", "weather", '{"city": "Oslo"}'),)


def test_calls_without_an_answer_are_an_error():
    with pytest.raises(PromptError, match="calls tools"):
        request("chat", TALK[:2])


def test_a_tool_may_answer_nothing():
    assert request("chat", [*TALK[:2], {"role": "tool", "content": ""}]).unreadable is None


def test_instructions_of_a_developer_are_the_systems():
    assert request("chat", [{"role": "developer", "content": "x"}, USER]).messages[0].role == "system"


@pytest.mark.parametrize("key", ["name", "tool_call_id"])
def test_labels_are_text(key):
    with pytest.raises(PromptError, match=key):
        request("chat", [{**USER, key: 7}])


@pytest.mark.parametrize("where", ["name", "arguments"])
def test_surrogates_are_found_in_labels_and_calls_too(where):
    bad = {"role": "user", "content": "x", "name": "\ud800"}
    if where == "arguments":
        bad = {"role": "assistant", "tool_calls": [{"function": {"name": "x", "arguments": "\ud800"}}]}
    with pytest.raises(PromptError, match="surrogate"):
        request("chat", [bad, USER])


def test_a_reply_that_has_begun_is_for_policies_to_allow():
    assert "begun" in (request("chat", [USER, {"role": "assistant", "content": "Sure"}]).unreadable or "")
