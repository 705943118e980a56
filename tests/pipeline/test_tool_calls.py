"""Tool calls in replies: each family's way of writing them, and what stays text."""

import json
from contextlib import contextmanager
from time import thread_time

import pytest
from families import template
from scripted import scripted
from tiny import FIRES, NEVER, policies, policy, write_vectors

from guardrail import Guard
from guardrail.pipeline.tool_calls import FORMATS, ToolReader, format_of
from guardrail.testing import tiny_tokenizer

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("weather", "clock")
]
WEATHER, CLOCK = ("weather", {"city": "Köln {1}"}), ("clock", {})


class Templated:
    def __init__(self, text):
        self.chat_template = text


def reader(family, tools=TOOLS):
    text = template(family)
    return ToolReader(tools, format_of(Templated(text)), None, lambda: "")


def as_json(call, arguments="arguments", **more):
    return json.dumps({"name": call[0], arguments: call[1], **more}, ensure_ascii=False)


DEEPSEEK = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{}\n```<｜tool▁call▁end｜>"
WRITTEN = {
    "qwen2.5": (
        f"<tool_call>\n{as_json(WEATHER)}\n</tool_call>\n<tool_call>\n{as_json(CLOCK)}\n</tool_call>"
    ),
    "qwen3": f"<tool_call>{as_json(WEATHER)}</tool_call><tool_call>{as_json(CLOCK)}",
    "mistral": f"[TOOL_CALLS] [{as_json(WEATHER, id='abcdefghi')}, {as_json(CLOCK)}]",
    "llama3": f"{as_json(WEATHER, 'parameters')}; {as_json(CLOCK, 'parameters')}",
    "deepseek": "<｜tool▁calls▁begin｜>"
    + "\n".join(DEEPSEEK.format(name, json.dumps(given)) for name, given in (WEATHER, CLOCK))
    + "<｜tool▁calls▁end｜>",
    "command-r": "Action: ```json\n"
    + json.dumps([{"tool_name": name, "parameters": given} for name, given in (WEATHER, CLOCK)])
    + "\n```",
}


def found(parsed):
    return [(call.name, json.loads(call.arguments)) for call in parsed.calls]


@pytest.mark.parametrize("family", WRITTEN)
def test_calls_are_found_as_the_family_writes_them(family):
    parsed = reader(family).parsed(WRITTEN[family])
    assert (parsed.text, found(parsed)) == ("", [WEATHER, CLOCK])
    assert all(len(call.id) == 9 for call in parsed.calls)


@pytest.mark.parametrize("family", [name for name in WRITTEN if name != "llama3"])
def test_what_is_said_around_calls_stays_text(family):
    parsed = reader(family).parsed(f"Let me look.\n{WRITTEN[family]}")
    assert (parsed.text, len(parsed.calls)) == ("Let me look.", 2)


@pytest.mark.parametrize("family", WRITTEN)
def test_nothing_of_a_call_is_handed_out_while_it_comes(family):
    told, text = reader(family), WRITTEN[family]
    assert {told.free(text[:end]) for end in range(1, len(text) + 1)} == {0}
    whole = "A plain reply, with (brackets) and 1 < 2."
    assert told.free(whole) == len(whole)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "weather", "arguments": {"city": }}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": "Bonn"}</tool_call>',
        '<tool_call>{"name": "launch", "arguments": {}}</tool_call>',
        '<tool_call>{"name": ["weather"], "arguments": {}}</tool_call>',
        "<tool_call>[]</tool_call>",
        "<tool_call>7</tool_call>",
        "<tool_call>",
        "<tool_call>" + "[" * 100_000,
        "no call at all",
        "",
    ],
)
def test_what_does_not_parse_stays_text(text):
    parsed = reader("qwen2.5").parsed(text)
    assert (parsed.text, parsed.calls) == (text, ())


def test_an_object_that_is_no_call_is_an_answer():
    answer = '{"name": "Ada", "parameters": {"born": 1815}}'
    assert reader("llama3").parsed(answer).text == answer


def test_a_tokenizer_that_reads_its_own_replies_goes_first():
    tokenizer = tiny_tokenizer()
    call = {"open": "<<", "close": ">>", "content": "json", "repeats": True}
    transform = {"type": "function", "function": "{content}"}
    tokenizer.response_template = {
        "start_anchor": "<|assistant|>",
        "fields": {"tool_calls": {**call, "transform": transform}, "content": {"content": "text"}},
    }
    told = ToolReader(TOOLS, FORMATS[0], tokenizer, lambda: "<|user|>x<|assistant|>")
    parsed = told.parsed(f"Yes. <<{as_json(WEATHER)}>>")
    assert (parsed.text, found(parsed)) == ("Yes.", [WEATHER])
    assert told.parsed("Yes. <<broken>>").text == "Yes. <<broken>>"
    assert told.free("Yes.") == 0


SAID = f"Look. <tool_call>{as_json(CLOCK)}</tool_call>"


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_tells_its_calls_and_the_history_keeps_them(speaking, stream):
    if stream:
        told = speaking.stream("What time is it?", tools=TOOLS)
        assert "".join(told) == "Look."
        reply = told.reply
    else:
        reply = speaking.chat("What time is it?", tools=TOOLS)
    (call,) = reply.tool_calls
    assert (reply.text, call.name, call.arguments, reply.finish) == ("Look.", "clock", "{}", "stop")
    assert reply.history[-1].tool_calls == (call,)


def test_without_tools_a_reply_is_text(speaking):
    reply = speaking.chat("What time is it?")
    assert (reply.text, reply.tool_calls) == (SAID, ())
    assert "".join(speaking.stream("What time is it?")) == SAID


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """A guard on a model that always asks what time it is."""
    with saying(tmp_path_factory.mktemp("guard"), policy(threshold=NEVER)) as made:
        yield made


@contextmanager
def saying(folder, *rules):
    model, tokenizer = scripted(SAID)
    write_vectors(folder, model, tokenizer=tokenizer, template=tokenizer.chat_template)
    with Guard(model, tokenizer, policies(folder, *rules)) as made:
        yield made


@pytest.mark.parametrize("stage", ["prompt", "response"])
def test_policies_hold_for_replies_that_call_tools(tmp_path, stage):
    monitor = {"monitor": {"every": 1}} if stage == "response" else {}
    rule = policy(threshold={"raw": FIRES}, stage=stage, **monitor)
    with saying(tmp_path, rule) as made:
        stream = made.stream("What time is it?", tools=TOOLS)
        sent = "".join(stream)
        for reply in (made.chat("What time is it?", tools=TOOLS), stream.reply):
            assert (reply.outcome, reply.tool_calls) == ("blocked", ())
        assert "<tool_call>" not in sent


@pytest.mark.parametrize("family", WRITTEN)
def test_long_replies_are_read_at_once(family):
    text = " \n" * 200_000
    told, start = reader(family), thread_time()
    assert told.parsed(text).text == text
    told.free(text)
    assert thread_time() - start < 1
