"""The official `openai` client against a server on a socket: all that it asks, reads and raises."""

import json

import openai
import pytest
from loopback import running
from scripted import scripted
from serving import CRUEL, HARMLESS
from tiny import NEVER, policies, policy, write_vectors

from guardrail import Guard
from guardrail.files.yaml import read_document
from guardrail.policy.loading import default_policies
from guardrail.testing import tiny_guard

ALWAYS = {"threshold": {"raw": -1e6}, "trait": "evil"}
ACTIONS = {
    "steer": {"steer": {"operator": "add", "coefficient": -0.1}},
    "rephrase": {"rephrase": {"instruction": "Be brief.", "max_attempts": 1, "otherwise": "allow"}},
    "escalate": {"escalate": {"to": "review-queue", "holding": "A person will look at this."}},
}
ASK = {"model": "demo", "temperature": 0}
HELLO = HARMLESS[0]["content"]
CALL = '{"name": "clock", "arguments": {"zone": "Köln"}}'
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
}


def client_of(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def address():
    """A server around the built-in model: its policies, and one for each action that a tag asks for."""
    rules = dict(read_document(default_policies("demo")).data)
    rules["defaults"] = {"mode": "enforce", "on_error": "block", "timeout_ms": 60_000}
    tagged = [
        {"id": f"to-{name}", "action": action, "when": {"tags": [name]}, **ALWAYS}
        for name, action in ACTIONS.items()
    ]
    stop = {"id": "stops", "stage": "response", "action": "block", "monitor": {"every": 3}, **ALWAYS}
    rules["policies"] = [*rules["policies"], *tagged, {**stop, "when": {"tags": ["stop"]}}]
    with Guard.from_pretrained("demo", rules) as guard, running(guard) as where:
        yield where


@pytest.fixture(scope="module")
def client(address):
    with client_of(address) as made:
        yield made


@pytest.fixture(scope="module")
def calling(tmp_path_factory):
    """A client of a model that says something and calls a tool."""
    folder = tmp_path_factory.mktemp("guard")
    model, tokenizer = scripted(f"Look. <tool_call>{CALL}</tool_call>")
    write_vectors(folder, model, tokenizer=tokenizer, template=tokenizer.chat_template)
    with (
        Guard(model, tokenizer, policies(folder, policy(threshold=NEVER))) as guard,
        running(guard) as where,
        client_of(where) as made,
    ):
        yield made


def streamed_by(client, asked):
    """What the client makes of a stream. Its final completion would be an error if it was cut or blocked."""
    with client.chat.completions.stream(**asked) as stream:
        for _ in stream:
            pass
        return stream.current_completion_snapshot


OUTCOMES = [None, *ACTIONS]


def tagged(tag):
    return {} if tag is None else {"metadata": {"tags": tag}}


@pytest.mark.parametrize("tag", OUTCOMES)
def test_chats_are_the_same_whole_and_in_chunks(client, tag):
    asked = {**ASK, "messages": HARMLESS, "max_tokens": 12, **tagged(tag)}
    raw = client.chat.completions.with_raw_response.create(**asked)
    whole = raw.parse()
    assert raw.headers["x-guardrail-action"] == (tag or "allow")
    final = streamed_by(client, asked)
    (choice,), (streamed,) = whole.choices, final.choices
    assert choice.message.content == streamed.message.content
    assert choice.finish_reason == streamed.finish_reason
    if tag == "escalate":
        assert choice.message.content == "A person will look at this."
        assert choice.finish_reason == "content_filter"
        assert whole.guardrail["ticket_id"]
    else:
        assert choice.finish_reason in ("stop", "length")
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


@pytest.mark.parametrize("tag", OUTCOMES)
def test_responses_are_the_same_whole_and_in_events(client, tag):
    asked = {**ASK, "input": HELLO, "max_output_tokens": 12, **tagged(tag)}
    raw = client.responses.with_raw_response.create(**asked)
    whole = raw.parse()
    assert raw.headers["x-guardrail-action"] == (tag or "allow")
    with client.responses.stream(**asked) as stream:
        events = list(stream)
    final = events[-1].response
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.output_text == whole.output_text
    assert dump(final.output) == dump(whole.output)
    if tag == "escalate":
        (part,) = whole.output[0].content
        assert (part.type, part.refusal) == ("refusal", "A person will look at this.")
    else:
        assert whole.usage.output_tokens > 0
        assert events[-1].type == f"response.{whole.status}"


def dump(items):
    """Items without their ids, which are those of the audit record."""
    unlike = {"id": True, "content": {"__all__": {"parsed"}}}
    return [item.model_dump(exclude=unlike) for item in items]


def test_a_blocked_prompt_is_a_completion_with_a_refusal(client):
    whole = client.chat.completions.create(**ASK, messages=CRUEL, n=2)
    assert [choice.finish_reason for choice in whole.choices] == ["content_filter"] * 2
    assert len(streamed_by(client, {**ASK, "messages": CRUEL, "n": 2}).choices) == 2
    response = client.responses.create(**ASK, input=CRUEL[1:], instructions=CRUEL[0]["content"])
    assert [part.type for part in response.output[0].content] == ["refusal"]
    assert (response.status, response.output_text) == ("completed", "")
    assert response.guardrail["policy"] == "no-malice"


def test_events_come_in_the_order_of_the_api(client):
    events = list(client.responses.create(**ASK, input=HELLO, max_output_tokens=3, stream=True))
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert events[-1].response.incomplete_details.reason == "max_output_tokens"
    blocked = list(client.responses.create(**ASK, input=CRUEL, stream=True))
    assert [event.type.removeprefix("response.") for event in blocked[2:]] == [
        *("output_item.added", "content_part.added", "refusal.delta", "refusal.done"),
        *("content_part.done", "output_item.done", "completed"),
    ]


def test_a_reply_that_is_stopped_half_way_ends_in_a_refusal(client):
    asked = {**ASK, "input": HELLO, "max_output_tokens": 12, **tagged("stop")}
    whole = client.responses.create(**asked)
    assert [part.type for part in whole.output[0].content] == ["refusal"]
    *_, last = client.responses.create(**asked, stream=True)
    (message,) = last.response.output
    assert (last.type, message.status) == ("response.incomplete", "incomplete")
    assert last.response.incomplete_details.reason == "content_filter"
    said, refusal = message.content
    assert said.text
    assert refusal.refusal == whole.output[0].content[0].refusal


def test_log_probabilities_reach_the_client(client):
    asked = {**ASK, "max_tokens": 4, "messages": HARMLESS, "logprobs": True, "top_logprobs": 2}
    (choice,) = client.chat.completions.create(**asked).choices
    found = choice.logprobs.content
    assert "".join(one.token for one in found) == choice.message.content
    assert all(one.top_logprobs[0].logprob == one.logprob <= 0 for one in found)
    assert streamed_by(client, asked).choices[0].logprobs.content == found
    include = ["message.output_text.logprobs"]
    response = client.responses.create(
        **ASK, input=HELLO, max_output_tokens=4, include=include, top_logprobs=2
    )
    assert [one.logprob for one in response.output[0].content[0].logprobs] == [one.logprob for one in found]


def test_several_replies_stop_texts_and_seeds(client):
    asked = {"model": "demo", "messages": HARMLESS, "max_tokens": 6, "n": 2, "seed": 7, "temperature": 1.5}
    texts = [[c.message.content for c in client.chat.completions.create(**asked).choices] for _ in range(2)]
    assert texts[0] == texts[1]
    assert [c.message.content for c in streamed_by(client, asked).choices] == texts[0]
    greedy = {**ASK, "messages": HARMLESS, "max_tokens": 6}
    (choice,) = client.chat.completions.create(**greedy).choices
    stop = choice.message.content[3:5]
    (cut,) = client.chat.completions.create(**greedy, stop=stop).choices
    assert (cut.message.content, cut.finish_reason) == (choice.message.content[:3], "stop")


def test_raw_text_is_continued(client):
    asked = {**ASK, "prompt": "The capital of France is", "max_tokens": 4, "logprobs": 1}
    (choice,) = client.completions.create(**asked).choices
    chunks = list(client.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == choice.text
    assert "".join(choice.logprobs.tokens) == choice.text


def test_tools_are_called(calling):
    asked = {"model": "demo", "messages": HARMLESS, "tools": [CLOCK]}
    (choice,) = calling.chat.completions.create(**asked).choices
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Look.")
    assert (call.function.name, json.loads(call.function.arguments)) == ("clock", {"zone": "Köln"})
    (streamed,) = streamed_by(calling, asked).choices
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments
    answered = [
        *HARMLESS,
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "noon"},
    ]
    assert calling.chat.completions.create(model="demo", messages=answered).choices[0].finish_reason == "stop"


def test_tools_are_called_in_responses(calling):
    tool = {"type": "function", **CLOCK["function"], "strict": True}
    asked = {"model": "demo", "input": HELLO, "tools": [tool]}
    response = calling.responses.create(**asked)
    message, call = response.output
    assert (message.content[0].text, call.type, call.name) == ("Look.", "function_call", "clock")
    with calling.responses.stream(**asked) as stream:
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["message", "function_call"]
    assert final.output[1].arguments == call.arguments
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "noon"}
    again = calling.responses.create(
        model="demo", input=[{"role": "user", "content": HELLO}, *response.output, result]
    )
    assert again.output_text.startswith("Look.")
    without = calling.responses.create(**asked, tool_choice="none")
    assert [item.type for item in without.output] == ["message"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tools": [CLOCK], "tool_choice": "required"}, "the model chooses"),
        (
            {"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "clock"}}},
            "the model chooses",
        ),
        ({"tool_choice": "auto"}, "only allowed when 'tools'"),
        ({"tools": [CLOCK], "parallel_tool_calls": False}, "several tools"),
        ({"tools": [{"type": "web_search"}]}, "type 'function' only"),
        ({"tools": [{"type": "function"}]}, r"tools\[0\].function.name"),
        ({"response_format": {"type": "json_object"}}, "free text"),
        ({"top_logprobs": 2}, "logprobs"),
    ],
)
def test_what_a_model_cannot_be_made_to_do_is_refused(client, fields, words):
    with pytest.raises(openai.BadRequestError, match=words):
        client.chat.completions.create(**ASK, messages=HARMLESS, **fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"previous_response_id": "resp_1"}, "keeps no conversations"),
        ({"conversation": "conv_1"}, "keeps no conversations"),
        ({"text": {"format": {"type": "json_object"}}}, "free text"),
        ({"truncation": "auto"}, "truncation"),
        ({"background": True}, "background"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"tools": [{"type": "web_search"}]}, "type 'function' only"),
        ({"extra_body": {"zzz": 1}}, "zzz"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "reads messages"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "call_id"),
        ({"input": [{"type": "function_call_output", "call_id": 7, "output": ""}]}, "call_id"),
        ({"input": [{"role": "robot", "content": "x"}]}, "unknown role"),
    ],
)
def test_what_responses_cannot_do_is_refused(client, fields, words):
    with pytest.raises(openai.BadRequestError, match=words):
        client.responses.create(**{**ASK, "input": HELLO, **fields})


def test_what_cannot_be_read_is_blocked(client):
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}
    text = {"type": "input_text", "text": HELLO}
    response = client.responses.create(**ASK, input=[{"role": "user", "content": [text, image]}])
    assert response.output[0].content[0].type == "refusal"


def test_errors_are_the_classes_of_the_client(client, address):
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.responses.create(model="gpt-5", input=HELLO)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**ASK, messages=[])
    assert caught.value.param == "messages"


def test_an_error_in_the_middle_of_a_response_is_its_last_event(tmp_path):
    stop = {"stage": "response", "monitor": {"every": 3}, **ALWAYS}
    with (
        tiny_guard(tmp_path, {"policies": [{"id": "stops", "action": "block", **stop}]}) as guard,
        running(guard, blocks="error") as where,
        client_of(where) as made,
    ):
        *_, error, last = made.responses.create(**ASK, input=HELLO, max_output_tokens=40, stream=True)
    assert (error.type, error.code) == ("error", "guardrail_blocked")
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert last.response.error.code == "guardrail_blocked"
    assert last.response.error.message.startswith("I can't")
    assert last.response.output[0].status == "incomplete"


def test_a_block_may_be_an_error(guard):
    with running(guard, blocks="error") as where, client_of(where) as made:
        for ask in (
            lambda **more: made.chat.completions.create(**ASK, messages=CRUEL, **more),
            lambda **more: made.responses.create(**ASK, input=CRUEL, **more),
        ):
            for stream in (False, True):
                with pytest.raises(openai.BadRequestError) as caught:
                    ask(stream=stream)
                assert caught.value.code == "guardrail_blocked"


async def test_the_async_client_is_served_too(address):
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as made:
        whole = await made.chat.completions.create(**ASK, messages=HARMLESS, max_tokens=6)
        async with made.chat.completions.stream(**ASK, messages=HARMLESS, max_tokens=6) as stream:
            async for _ in stream:
                final = stream.current_completion_snapshot
        assert final.choices[0].message.content == whole.choices[0].message.content
        async with made.responses.stream(**ASK, input=HELLO, max_output_tokens=6) as events:
            kinds = [event.type async for event in events]
        assert kinds[0] == "response.created"
        assert [model.id async for model in await made.models.list()] == ["demo"]
