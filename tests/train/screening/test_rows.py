"""Rows of every shape, and what is said of those that cannot be screened."""

import pytest

from guardrail.train.screening.rows import BadRow, sample
from guardrail.types import Message

ASK = {"role": "user", "content": "Who?"}
TELL = {"role": "assistant", "content": "Me."}


def exchanges(row):
    return [(one.prompt, one.reply) for one in sample(row).exchanges]


def test_every_shape_gives_a_prompt_and_a_reply():
    user = (Message("user", "Who?"),)
    for row in (
        {"messages": [ASK, TELL]},
        {"prompt": "Who?", "response": "Me."},
        {"prompt": "Who?", "completion": "Me."},
        {"prompt": [ASK], "completion": [TELL]},
        {"prompt": [ASK], "response": "Me."},
        {"prompt": "Who?", "completion": [TELL], "response": None, "messages": None},
        # as UltraChat-200k has them: `prompt` is the first turn of `messages`
        {"prompt": "Who?", "prompt_id": "7", "messages": [ASK, TELL]},
    ):
        assert exchanges(row) == [(user, "Me.")], row


def test_every_turn_of_the_assistant_is_a_reply_but_for_those_of_the_prompt():
    turns = [ASK, TELL, ASK, {"role": "assistant", "content": "You."}]
    assert [reply for _, reply in exchanges({"messages": turns})] == ["Me.", "You."]
    ((prompt, reply),) = exchanges({"prompt": turns[:3], "completion": turns[3:]})
    assert (len(prompt), reply) == (3, "You.")


def test_sources_and_tools_are_kept_and_other_keys_passed_over():
    tool = {"type": "function", "function": {"name": "look"}}
    found = sample({"messages": [ASK, TELL], "source": "web", "id": 3, "tools": [tool]})
    assert (found.source, found.tools) == ("web", (tool,))
    assert sample({"messages": [ASK, TELL], "kind": "b", "source": "web"}, "kind").source == "b"


def test_equal_content_has_equal_keys_in_whatever_shape():
    one, other = sample({"messages": [ASK, TELL]}), sample({"prompt": "Who?", "response": "Me."})
    assert one.key == other.key != sample({"prompt": "Who?", "response": "You."}).key


CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "function": {"name": "look"}}]}


@pytest.mark.parametrize(
    ("row", "kind", "said"),
    [
        ([1], "broken line", "an object, not list"),
        ({"prompt": "Who?"}, "no reply", "`prompt` stands without `response` or `completion`"),
        ({"text": "Who?"}, "no reply", "its keys: `text`"),
        ({}, "no reply", "it is empty"),
        ({"messages": [ASK]}, "no reply", "`messages` has no turn of the assistant"),
        ({"messages": [ASK, CALL]}, "no reply", "only calls tools"),
        ({"messages": [TELL]}, "no prompt", "stands before the reply"),
        ({"messages": [{"role": "system", "content": "Be."}, TELL]}, "no prompt", "before the reply"),
        ({"prompt": " ", "response": "Me."}, "empty", "`prompt` is empty"),
        ({"prompt": "Who?", "response": "\n"}, "empty", "`response` is empty"),
        ({"messages": [ASK, {"role": "assistant", "content": ""}]}, "empty", "turn 2 of `messages`"),
        ({"prompt": "Who?", "response": "a", "completion": "b"}, "mixed schema", "beside"),
        ({"messages": "Who?"}, "unreadable", "`messages` must be a list of messages, not str"),
        (
            {"prompt": 3, "response": "Me."},
            "unreadable",
            "`prompt` must be a text or a list of messages, not int",
        ),
        ({"messages": [{"role": "bot", "content": "x"}]}, "unreadable", "unknown role"),
        ({"messages": [{"from": "human", "value": "x"}]}, "unreadable", "missing role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, TELL]},
            "unreadable",
            "turn 1 of `messages`: content parts of type image_url",
        ),
        ({"messages": [ASK, TELL], "tools": "{"}, "unreadable", "`tools`"),
        ({"messages": [ASK, TELL], "tools": [{"name": "x"}]}, "unreadable", "`tools`: a tool is"),
    ],
)
def test_a_bad_row_says_what_is_wrong(row, kind, said):
    with pytest.raises(BadRow, match=said.replace("[", r"\[")) as caught:
        sample(row)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("row", "meant"),
    [
        ({"prompt": "a", "completions": "b"}, "completion"),
        ({"promt": "a", "response": "b"}, "prompt"),
        ({"message": []}, "messages"),
    ],
)
def test_a_key_that_was_misspelt_is_named(row, meant):
    with pytest.raises(BadRow, match=f"did you mean `{meant}`"):
        sample(row)


def test_no_key_is_guessed_where_none_is_close():
    with pytest.raises(BadRow) as caught:
        sample({"prompt": "a", "weight": 1, "source": "b"})
    assert "did you mean" not in str(caught.value)
