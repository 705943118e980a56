"""Requests that end otherwise than with their reply: clients that leave or do not read, limits, shutdown."""

import asyncio
import json
import logging
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest
from serving import chat, events

from guardrail.errors import EvaluationError
from guardrail.pipeline.warm_up import PREFIX as WARM_UP
from guardrail.serve.app import create_app
from guardrail.serve.delivery import Delivery
from guardrail.serve.errors import ApiError
from guardrail.serve.settings import ServerSettings

PATH = "/v1/chat/completions"
LONG = chat(max_tokens=64)
"""Some thirty tokens: more than a second on the slow model."""


def ended(records, count, wanted=1):
    """The outcomes of the records since there were `count`, once there are so many.

    The prompt with which a server warms up is not among them.
    """
    until, found = time.monotonic() + 10, list[str]()
    while len(found) < wanted and time.monotonic() < until:
        time.sleep(0.01)
        found = [record.outcome for record in records.ended[count:] if not record.id.startswith(WARM_UP)]
    return found


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_its_generation(running, slow, records, stream):
    server, count = running(), len(records.ended)
    with httpx.Client(base_url=server.url, timeout=10 if stream else 0.4) as http:
        if stream:
            with http.stream("POST", PATH, json=LONG | {"stream": True}) as response:
                assert next(response.iter_lines()).startswith("data: ")
        else:
            with pytest.raises(httpx.ReadTimeout):
                http.post(PATH, json=LONG)
    left = time.monotonic()
    assert server.settled()
    assert ended(records, count) == ["cancelled"]
    # one pass may be about to begin
    assert len([at for at in slow if at > left + 0.1]) <= 1


async def test_a_client_that_does_not_read_is_given_up(guard, records):
    app = create_app(guard, ServerSettings(send_s=0.2))
    body, count, sent = json.dumps(chat(stream=True)).encode(), len(records.ended), []
    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "http_version": "1.1",
        "scheme": "http",
        "asgi": {"version": "3.0"},
    }
    given = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive():
        return next(given, None) or await asyncio.Event().wait()

    async def send(message):
        sent.append(message)
        if len(sent) == 3:
            await asyncio.Event().wait()

    async with asyncio.timeout(5):
        await app(scope, receive, send)
    assert len(sent) == 3
    assert app.state.service.delivery.inside == 0
    assert len(ended(records, count)) == 1


def test_a_full_queue_says_when_to_come_back(running, slow):
    server = running(queue=1)
    with ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(httpx.post, server.url + PATH, json=chat()) for _ in range(4)]
        responses = [one.result() for one in asked]
    statuses = sorted(response.status_code for response in responses)
    assert statuses == [200, 503, 503, 503]
    full = next(response for response in responses if response.status_code == 503)
    assert full.json()["error"]["code"] == "overloaded"
    assert int(full.headers["retry-after"]) >= 1


def test_a_request_past_its_deadline_gets_an_error(running, slow, records):
    server, count = running(deadline_s=1.2), len(records.ended)
    plain = httpx.post(server.url + PATH, json=LONG)
    assert (plain.status_code, plain.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert server.settled()
    # the worker may be in the middle of a pass for a moment more
    assert ended(records, count) == ["cancelled"]
    assert plain.headers["x-guardrail-audit-id"] in [record.id for record in records.ended]
    stream = httpx.post(server.url + PATH, json=LONG | {"stream": True})
    # on a busy machine the deadline may come before the first word
    *_, last = map(json.loads, events(stream.text) if stream.status_code == 200 else [stream.text])
    assert last["error"]["code"] == "deadline_exceeded"
    assert server.settled()
    assert ended(records, count, 2) == ["cancelled", "cancelled"]


async def test_a_deadline_whose_timer_is_a_moment_early_is_no_shutdown(monkeypatch):
    loop, delivery = asyncio.get_running_loop(), Delivery(room=1, deadline_s=0.2)
    # so much earlier than due does a loop run its timers
    monkeypatch.setattr(loop, "_clock_resolution", 0.1)

    async def endless():
        async with delivery.until(loop.time() + 0.2, lambda: None):
            while True:
                await asyncio.sleep(0)

    with pytest.raises(ApiError) as caught:
        await endless()
    assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")


def _asked(server, clients, **fields):
    future = clients.submit(httpx.post, server.url + PATH, json=LONG | fields, timeout=10)
    while not server.service.delivery.inside:
        time.sleep(0.01)
    return future


def test_a_server_that_ends_finishes_what_runs_and_refuses_what_comes(running, slow):
    server = running()
    with ThreadPoolExecutor() as clients:
        asked = _asked(server, clients)
        server.end()
        while not server.service.draining:
            time.sleep(0.01)
        late = httpx.post(server.url + PATH, json=chat())
        reply = asked.result()
    assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")
    assert reply.json()["choices"][0]["finish_reason"] == "stop"
    server.thread.join(5)
    assert not server.thread.is_alive()


@pytest.mark.parametrize("stream", [True, False])
def test_after_the_grace_period_what_runs_is_told(running, slow, records, stream):
    server, count = running(grace_s=0.3), len(records.ended)
    with ThreadPoolExecutor() as clients:
        asked = _asked(server, clients, stream=stream)
        time.sleep(0.2)
        server.end()
        reply = asked.result()
    # on a busy machine the end may come before the first word
    assert reply.status_code in ((200, 503) if stream else (503,))
    last = events(reply.text)[-1] if reply.status_code == 200 else reply.text
    assert json.loads(last)["error"]["code"] == "shutting_down"
    server.thread.join(5)
    assert not server.thread.is_alive()
    assert ended(records, count) == ["cancelled"]


def test_a_second_signal_ends_the_server_with_one_line(running, slow, caplog, monkeypatch):
    # the server quiets it, and the test puts it back
    monkeypatch.setattr(logging.getLogger("uvicorn"), "level", logging.WARNING)
    caplog.set_level(logging.INFO, "guardrail.serve")
    server = running()
    with ThreadPoolExecutor() as clients:
        asked = _asked(server, clients)
        server.end()
        while not server.service.draining:
            time.sleep(0.01)
        server.server.handle_exit(signal.SIGINT, None)
        with suppress(httpx.HTTPError):
            asked.result()
    server.thread.join(5)
    said = [record.getMessage() for record in caplog.records if record.name != "guardrail.serve.requests"]
    assert said == [
        "finishing 1 request, at most 30 s; Ctrl-C again ends it at once",
        "ended at once, with 1 request unfinished",
    ]


async def test_the_event_loop_goes_on_while_the_model_works(client, slow):
    asked = asyncio.create_task(client.post(PATH, json=LONG))
    while not slow:
        await asyncio.sleep(0.01)
    assert (await client.get("/v1/models")).status_code == 200
    assert not asked.done()
    assert (await asked).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_without_an_audit_record_nothing_is_answered(client, records, monkeypatch, stream):
    def full(record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "decided", full)
    response = await client.post(PATH, json=chat(stream=stream))
    assert (response.status_code, response.json()["error"]["code"]) == (500, "guardrail_error")
    assert response.json()["error"]["type"] == "server_error"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_names_the_record_if_there_is_one(client, guard, records, monkeypatch, stream):
    def broken(*arguments):
        raise EvaluationError("nothing was generated")

    monkeypatch.setattr(guard._driver, "decide", broken)
    response = await client.post(PATH, json=chat(stream=stream))
    assert (response.status_code, response.json()["error"]["code"]) == (500, "not_evaluated")
    assert (records.ended[-1].id, records.ended[-1].outcome) == (
        response.headers["x-guardrail-audit-id"],
        "error",
    )

    def full(record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "finished", full)
    response = await client.post(PATH, json=chat(stream=stream))
    assert response.status_code == 500
    assert "x-guardrail-audit-id" not in response.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_that_nobody_expected_says_nothing_of_its_cause(
    client, guard, monkeypatch, caplog, stream
):
    def broken(*arguments, **named):
        raise ValueError("cannot answer: my secret prompt")

    monkeypatch.setattr(guard, "stream" if stream else "chat", broken)
    response = await client.post(PATH, json=chat(stream=stream))
    assert response.status_code == 500
    assert "the server failed" in response.json()["error"]["message"]
    assert "ValueError" in caplog.text
    assert "secret" not in response.text + caplog.text


def test_no_answer_waits_for_an_acknowledgement(running):
    with httpx.Client(base_url=running().url) as client:
        times = [client.get("/healthz").elapsed.total_seconds() for _ in range(8)]
    # a system holds an acknowledgement back for 40 ms
    assert min(times[1:]) < 0.035
