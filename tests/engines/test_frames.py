"""The user's text in token ids alone: as the messages tell it, or an error, in a dozen chat templates."""

import pytest
from families import FAMILIES, byte_level, template

from guardrail.engines.transformers.rendering import Renderer
from guardrail.errors import ModelError, PromptError
from guardrail.types import Message, ToolCall

SYSTEM = Message("system", "You work for a bank.")
CALL = ToolCall("c00000001", "weather", '{"city": "Oslo"}')
TALKS = {
    "alone": [],
    "second turn": [Message("user", "Hi"), Message("assistant", "Hello")],
    "third turn": [Message("user", "So?"), Message("assistant", "Well.")] * 2,
}
MERGED = ("gemma", "mistral")
"""Families that put a system prompt into a user's turn, so that ids do not show where it ends."""


@pytest.fixture(params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture
def renderer(name):
    return Renderer(byte_level(FAMILIES[name].marks), template(name))


def same(renderer, messages):
    prompt = renderer.render(messages, (), ["user_mean"])
    return renderer.spans_in(prompt.ids, ["user_mean"]) == prompt.spans


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
@pytest.mark.parametrize("text", ["Do you lend money?", "two\nlines, 日本語", "user\n"])
def test_ids_tell_the_users_text_as_messages_do(name, renderer, talk, text):
    assert same(renderer, [*talk, Message("user", text)])
    if name not in MERGED:
        assert same(renderer, [SYSTEM, *talk, Message("user", text)])


@pytest.mark.parametrize("name", MERGED)
def test_a_system_prompt_in_the_users_turn_is_not_read_as_the_users(name, renderer):
    for text in ("Do you lend money?", "a paragraph\n\nand another"):
        ids = renderer.render([SYSTEM, Message("user", text)]).ids
        with pytest.raises(PromptError, match="a system prompt may stand in the same turn"):
            renderer.spans_in(ids, ["user_mean"])


def test_tool_results_are_not_taken_for_the_user(name, renderer):
    if not FAMILIES[name].tools:
        with pytest.raises(ModelError, match="`tool_mean` cannot be read with this chat template"):
            renderer.check(["tool_mean"])
        return
    talk = [Message("user", "Rain?"), Message("assistant", "", (CALL,)), Message("tool", "wet", (), CALL.id)]
    assert same(renderer, talk)
    assert same(renderer, [*talk, Message("assistant", "It rains."), Message("user", "And now?")])
    with pytest.raises(PromptError, match="tool results cannot be found in token ids"):
        renderer.spans_in(renderer.render(talk).ids, ["tool_mean"])
    renderer.check(["tool_mean", "user_mean"])


def test_ids_that_no_turn_of_a_user_ends_are_refused(renderer):
    ids = renderer.render([Message("user", "Hello")]).ids
    ((start, end),) = renderer.render([Message("user", "Hello")], (), ["user_mean"]).spans["user_mean"]
    for cut in (ids[:end], ids[start:], renderer.encode("Hello")):
        with pytest.raises(PromptError, match="cannot be found in these token ids"):
            renderer.spans_in(cut, ["user_mean"])


def test_ids_that_do_not_survive_their_text_are_refused():
    renderer = Renderer(byte_level(("<|im_start|>", "<|im_end|>"), ["hello hello"] * 3), template("smollm2"))
    (word,) = renderer.encode("hello")
    ids = list(renderer.render([Message("user", "hello")]).ids)
    place = ids.index(word)
    spelt = [renderer.tokenizer.convert_tokens_to_ids(letter) for letter in "hello"]
    with pytest.raises(PromptError, match="their text has other ids"):
        renderer.spans_in([*ids[:place], *spelt, *ids[place + 1 :]], ["user_mean"])


def test_whole_prompts_need_no_frames():
    renderer = Renderer(byte_level(()), "{{ messages | length }}")
    assert renderer.spans_in((5, 6, 7), ["prompt_mean", "last"]) == {
        "prompt_mean": ((0, 3),),
        "last": ((2, 3),),
    }
    with pytest.raises(ModelError, match="`user_mean` cannot be read with this chat template"):
        renderer.check(["user_mean"])
