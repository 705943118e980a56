"""Server-sent events as clients read them, whatever is said in them and however the network cuts them."""

import json
from itertools import pairwise

import httpx
import httpx_sse
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import OpenAI, Stream
from openai.types.chat import ChatCompletionChunk

from guardrail.serve.openai.chat_shapes import ChatChunk, ChunkChoice, Delta
from guardrail.serve.openai.events import DONE, event
from guardrail.serve.openai.response_events import ResponseEvents

BREAKING = "a\nb\rc\r\nd\x0be\x0cf\x1cg\x1eh\x85i\u2028j\u2029k\0l\ufeffm data: [DONE]\n\nid: 3\n\n"
CLIENT = OpenAI(api_key="x", base_url="http://x/v1")
TEXT = st.text(st.one_of(st.sampled_from(BREAKING + '😀é{}"\\'), st.characters(exclude_categories=["Cs"])))


def streamed(body, cuts):
    """A response that comes in these parts."""
    ends = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    parts = [body[a:b] for a, b in pairwise(ends)]
    kind = {"content-type": "text/event-stream"}
    return httpx.Response(
        200, headers=kind, content=iter(parts), request=httpx.Request("POST", "http://x/v1")
    )


def by_openai(response):
    chunks = list(Stream(cast_to=ChatCompletionChunk, response=response, client=CLIENT))
    return [chunk.choices[0].delta.content for chunk in chunks]


def by_httpx_sse(response):
    *found, done = [one.data for one in httpx_sse.EventSource(response).iter_sse()]
    assert done == "[DONE]"
    return [json.loads(data)["choices"][0]["delta"]["content"] for data in found]


def by_lines(response):
    """As clients do that read lines with httpx, which also ends them where Unicode does."""
    lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(data)["choices"][0]["delta"]["content"] for data in lines]


READERS = (by_openai, by_httpx_sse, by_lines)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXT, max_size=4), cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_every_reader_gets_what_was_said(texts, cuts):
    chunks = [
        ChatChunk(
            id="x",
            created=0,
            model="m",
            choices=[ChunkChoice(index=0, delta=Delta(content=text), finish_reason=None)],
        )
        for text in texts
    ]
    body = ("".join(event(chunk) for chunk in chunks) + DONE).encode()
    assert [reader(streamed(body, cuts)) for reader in READERS] == [texts] * len(READERS)


@settings(max_examples=30, deadline=None)
@given(text=TEXT, cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_events_of_responses_are_lines_for_every_reader(text, cuts):
    body = ResponseEvents("m").error("code", text, None).encode()
    (read,) = httpx_sse.EventSource(streamed(body, cuts)).iter_sse()
    kind, data = [line for line in streamed(body, cuts).iter_lines() if line]
    assert (read.event, kind) == ("error", "event: error")
    assert json.loads(read.data)["message"] == json.loads(data.removeprefix("data: "))["message"] == text
