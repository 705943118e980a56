"""Tools, and turns that a chat template leaves out."""

import pytest
from tiny import NEVER, TOKENIZER, guard, policy

from guardrail.engines.transformers.rendering import Renderer
from guardrail.errors import PromptError
from guardrail.types import Message, ToolCall

DROPS = (
    "{% for m in messages %}{% if m.role in ['system', 'user', 'assistant'] %}"
    "<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
KNOWS = (
    "{% if tools %}Tools:{% for t in tools %} {{ t.function | tojson }}{% endfor %}\n{% endif %}"
    "{% for m in messages %}<|{{ 'user' if m.role == 'tool' else m.role }}|>{{ m.content | trim }}"
    "{% for c in m.tool_calls %}{{ c.function.name }}({{ c.function.arguments.items() | list }}){% endfor %}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MERGES = (
    "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>"
    "{% if loop.first and messages[0].role == 'system' %}{{ messages[0].content | tojson }} {% endif %}"
    "{{ m.content | tojson }}{% endfor %}<|assistant|>"
)
CALL = ToolCall("c1", "weather", '{"city": "Oslo"}')
ASKED = (Message("user", "Rain?"), Message("assistant", "", (CALL,)))
TALK = (*ASKED, Message("tool", "u", (), "c1", "weather"))
TOOL = {"type": "function", "function": {"name": "weather", "description": "of a city"}}


def text(template, messages, tools=()):
    found = Renderer(TOKENIZER, template).render(messages, tools)
    return TOKENIZER.decode(found.ids), found.unread


def test_calls_results_and_tools_are_rendered_with_arguments_as_objects():
    rendered, unread = text(KNOWS, TALK, [TOOL])
    assert unread is None
    assert "weather([('city', 'Oslo')])" in rendered
    assert '"description": "of a city"' in rendered
    assert rendered.endswith("<|user|>u<|end|><|assistant|>")


def test_arguments_that_are_not_json_are_shown_as_they_are():
    template = "{% for m in messages %}{{ m.content }}{{ m.tool_calls }}{% endfor %}"
    rendered, _ = text(template, [TALK[0], Message("assistant", "", (ToolCall("c", "f", "{oops"),)), TALK[2]])
    assert "'{oops'" in rendered


def test_a_role_that_the_template_drops_is_named_even_if_its_text_is_elsewhere():
    messages = (TALK[0], Message("assistant", "Let me see."), Message("tool", "u"), Message("user", "So?"))
    assert text(DROPS, messages)[1] == "the chat template leaves out turn 3, of the role `tool`"


def test_calls_that_the_template_drops_are_named():
    assert text(DROPS, (*ASKED, Message("user", "So?")))[1] == (
        "the chat template leaves out the tool calls of turn 2"
    )


def test_a_template_that_does_not_know_tools_is_an_error():
    with pytest.raises(PromptError, match="does not know `tools`"):
        text(DROPS, TALK[:1], [TOOL])


@pytest.mark.parametrize("template", [DROPS, KNOWS, MERGES, None])
def test_templates_that_trim_escape_and_merge_leave_nothing_out(template):
    messages = (Message("system", " s "), Message("user", ' "x"\n'), Message("assistant", "é"), TALK[0])
    assert text(template, messages)[1] is None


def test_one_look_at_each_form_of_conversation_is_enough():
    renderer = Renderer(TOKENIZER, KNOWS)
    for word in ("one", "two", "three"):
        renderer.render([Message("user", word)])
    assert renderer._left_out.cache_info().misses == 1


def test_a_reply_that_has_begun_is_continued():
    rendered, _ = text(KNOWS, (TALK[0], Message("assistant", "It will")))
    assert rendered.endswith("<|assistant|>It will")


def test_policies_stop_a_turn_that_the_template_drops_and_may_allow_it(tmp_path):
    messages = [Message("user", "Hello"), Message("tool", "secret"), Message("user", "So?")]
    options = {"options": {"chat_template": DROPS}, "allow_model_mismatch": True}
    with guard(tmp_path, policy(threshold=NEVER), **options) as made:
        decision = made.check(messages).decision
    assert (decision.status, decision.action) == ("not_evaluated", "block")
    with guard(tmp_path, policy(threshold=NEVER, unsupported_input="allow"), **options) as made:
        decision = made.check(messages).decision
    assert (decision.status, decision.action) == ("evaluated", "allow")
    assert "turn 2" in decision.warnings[-1]


def test_a_begun_reply_is_blocked_by_default_and_continued_if_policies_allow_it(tmp_path):
    messages = [Message("user", "Hello"), Message("assistant", "Hel")]
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        assert made.chat(messages, max_new_tokens=2).outcome == "blocked"
    with guard(tmp_path, policy(threshold=NEVER, unsupported_input="allow")) as made:
        reply = made.chat(messages, max_new_tokens=2)
        assert reply.outcome == "answered"
        assert "begun" in reply.decision.warnings[-1]


def test_a_conversation_with_tools_is_answered_and_audited_by_its_hash(tmp_path):
    options = {"options": {"chat_template": KNOWS}, "allow_model_mismatch": True}
    with guard(tmp_path, policy(threshold=NEVER), **options) as made:
        plain = made.chat(TALK, max_new_tokens=2, temperature=0)
        offered = made.chat(TALK, max_new_tokens=2, temperature=0, tools=[TOOL])
        assert [reply.outcome for reply in (plain, offered)] == ["answered"] * 2
        assert made.check(TALK, tools=[TOOL]).decision.scores[0] != made.check(TALK).decision.scores[0]
        assert plain.history[:3] == TALK
