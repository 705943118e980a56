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
        (7, "int"),
    ],
)
def test_what_is_not_text_is_unreadable_with_its_type(content, reason):
    found = request("chat", [{"role": "user", "content": content}]).unreadable or ""
    assert f"of type {reason} cannot be read" in found


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


def test_one_tag_is_not_split_into_letters():
    assert request("chat", "Hello", tags="public").facts.tags == {"public"}


def test_a_conversation_has_an_id_only_if_the_caller_gave_one():
    assert request("chat", TALK, conversation="c").talk == (None, "c")
    assert request("chat", TALK).talk is None
    assert not request("chat", TALK, conversation="").named


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_without_a_user_turn_the_first_message_stands_for_the_conversation(role):
    first, second = {"role": role, "content": "a"}, {"role": role, "content": "b"}
    assert request("chat", [first]).facts.conversation == request("chat", [first, second]).facts.conversation
    assert request("chat", [first]).facts.conversation != request("chat", [second]).facts.conversation
    assert len(request("chat", [first]).facts.conversation) == 16


def test_instructions_do_not_make_another_conversation():
    assert request("chat", TALK).facts.conversation == request("chat", TALK[1:]).facts.conversation


def test_text_parts_are_lines():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    item = request("chat", [{"role": "user", "content": parts}])
    assert (item.messages, item.unreadable) == ((Message("user", "a\nb"),), None)


def test_what_cannot_be_read_is_left_out_of_the_text():
    item = request("chat", [{"role": "user", "content": 7}, *TALK[1:]])
    assert item.messages[0] == Message("user", "")
    assert item.unreadable == "content of type int cannot be read"


def test_all_that_cannot_be_read_is_in_the_reason():
    turns = [{"role": "user", "content": 7}, {"role": "user", "content": None}]
    assert request("chat", turns).unreadable == (
        "content of type int cannot be read; a message without content cannot be read"
    )


def test_no_tool_calls_are_readable():
    assert request("chat", [{"role": "user", "content": "x", "tool_calls": []}]).unreadable is None


def test_the_prompt_of_a_generate_may_be_blank():
    assert request("generate", [Message("user", " ")]).messages == (Message("user", " "),)


def test_an_unknown_role_is_an_error_that_lists_the_roles():
    with pytest.raises(PromptError, match="'wizard'; roles are system, user, assistant, tool"):
        request("chat", [{"role": "wizard", "content": "x"}])


@pytest.mark.parametrize("messages", [5, None, [1], b"x", {"role": "user", "content": "x"}, [["user", "x"]]])
def test_messages_that_are_none_are_a_prompt_error(messages):
    with pytest.raises(PromptError, match=r"messages are a text|a message is a mapping"):
        request("chat", messages)


@pytest.mark.parametrize("tags", [b"public", {"public": True}, [b"public"], [1], None, 5, ["\ud800"], [None]])
def test_tags_that_no_policy_could_mean_are_an_error(tags):
    with pytest.raises(PromptError, match="tag"):
        request("chat", "Hello", tags=tags)


@pytest.mark.parametrize("conversation", [b"c", 1, ["c"], "\ud800"])
def test_an_id_of_a_conversation_is_a_text(conversation):
    with pytest.raises(PromptError, match="conversation's id"):
        request("chat", "Hello", conversation=conversation)
