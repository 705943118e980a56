"""Clients that mean harm, over sockets: 4xx in time, and a server that goes on."""

import asyncio
import json

import pytest
from loopback import running
from serving import chat

from benchmarks.serving.asking import client
from benchmarks.serving.attacks import PART, attacks, chunk, head, once, whole
from benchmarks.serving.hostile import connected, crowd, meet, pipelined
from guardrail import PromptError
from guardrail.serve.settings import LINGER_S

PATIENCE_S = 0.5
ATTACKS = attacks(1 << 26, PATIENCE_S)


@pytest.fixture(scope="module")
def address(guard):
    """The URL of a real server that has little patience."""
    with running(guard, send_s=PATIENCE_S) as found:
        yield found


@pytest.fixture
def port(address):
    return int(address.rpartition(":")[2])


async def status(reader):
    """Of the next answer, which is read to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
    return int(head.split()[1])


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_an_attack_is_refused_in_time(port, attack):
    reaction = await meet(port, attack.parts(), patience=10)
    assert set(reaction.statuses[:1]) <= attack.answers
    assert json.loads(reaction.bodies[0])["error"]["message"]
    assert reaction.seconds < attack.seconds + 1


async def test_nothing_that_is_hidden_in_a_request_is_answered(port):
    hidden = whole(b'{"model": "demo"}')
    both = head("Transfer-Encoding: chunked", f"Content-Length: {len(hidden)}") + chunk(b"") + hidden
    reaction = await meet(port, once(both), wanted=2, patience=5)
    assert (reaction.statuses, reaction.closed) == ((400,), True)


async def test_the_next_client_is_answered(port, address):
    assert await pipelined(port, 6) == (200, 400, 200, 400, 200, 400)
    assert (await crowd(port, 100))["status"] == 200
    async with client(address) as http:
        assert (await http.post("/v1/chat/completions", json=chat())).status_code == 200


async def test_a_client_that_is_slow_but_not_too_slow_is_answered(port):
    request = whole(b'{"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}')

    async def parts():
        for i in range(0, len(request), 20):
            yield request[i : i + 20]
            await asyncio.sleep(0.01)

    assert (await meet(port, parts())).statuses == (200,)


async def test_a_connection_may_wait_between_requests(port):
    async with connected(port) as (reader, writer):
        for _ in range(2):
            writer.write(whole(b"{}"))
            assert await status(reader) == 400
            await asyncio.sleep(PATIENCE_S / 2)


async def test_a_connection_goes_on_after_an_answer_that_was_faster_than_the_body(port):
    async with connected(port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: elsewhere\r\nContent-Length: 5\r\n\r\n")
        assert await status(reader) == 421
        writer.write(b"12345")
        # longer than the server lingers, and each time within its patience
        for _ in range(5):
            await asyncio.sleep(LINGER_S / 4)
            writer.write(whole(b"{}"))
            assert await status(reader) == 400


async def test_a_body_without_an_end_ends_with_the_connection(port):
    async def endless():
        yield head("Transfer-Encoding: chunked")
        while True:
            yield chunk(PART)

    reaction = await meet(port, endless(), wanted=2, patience=5)
    assert (reaction.statuses, reaction.closed) == ((413,), True)
    assert reaction.seconds < 2 * LINGER_S


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        head("Content-Length: -1"),
        head("Content-Length: 5", "Content-Length: 6"),
        head("x-a: b\0c"),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_a_connection_that_speaks_no_http_is_answered_and_ended(port, sent):
    reaction = await meet(port, once(sent), wanted=2, patience=5)
    assert (reaction.statuses, reaction.closed) == ((400,), True)


async def test_a_connection_that_says_nothing_is_ended(port):
    reaction = await meet(port, once(), wanted=2, patience=5)
    assert (reaction.statuses, reaction.closed) == ((408,), True)


def test_a_text_that_cannot_fit_is_not_even_tokenised(guard, monkeypatch):
    monkeypatch.setattr(guard.engine, "render", None)
    with pytest.raises(PromptError, match=r"has 300000 characters; the model reads 512 tokens"):
        guard.check("ab " * 100_000)
