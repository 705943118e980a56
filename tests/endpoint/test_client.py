"""The endpoint client against a real server: patient, bounded, clear about errors, silent about the key."""

import logging
import re
import socket
import time
from dataclasses import replace
from email.utils import formatdate

import pytest
from endpoints import DRIPS, Response, dripping, failed, said, script, server

from guardrail.endpoint.client import Endpoint, EndpointSettings
from guardrail.endpoint.messages import ChatRequest
from guardrail.errors import ConfigError, EndpointError
from guardrail.types import Message

KEY = "sk-very-secret-0123"
ASK = ChatRequest(model="m", messages=(Message("user", "Hi"),), max_tokens=5)
QUICK = EndpointSettings(api_key_env="TEST_KEY", timeout_s=2, attempts=4, backoff_s=0.01)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)


def endpoint(url, **changes):
    return Endpoint(replace(QUICK, base_url=url, **changes))


def refused(url, **changes):
    with endpoint(url, **changes) as client, pytest.raises(EndpointError) as caught:
        client.complete(ASK)
    assert KEY not in str(caught.value)
    return caught.value


def test_an_answer_is_read():
    with (
        server(script(said("Hello.", first={"Hello": 0.5, "Hi": 0.25}))) as (url, seen),
        endpoint(url) as client,
    ):
        answer = client.complete(replace(ASK, seed=0, top_logprobs=2))
    assert (answer.text, answer.whole) == ("Hello.", True)
    assert [(a.token, round(a.logprob, 3)) for a in answer.first] == [("Hello", -0.693), ("Hi", -1.386)]
    assert seen.bodies == [
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "temperature": 0.0}
        | {"seed": 0, "logprobs": True, "top_logprobs": 2}
    ]
    assert seen.keys == [f"Bearer {KEY}"]


def test_no_key_no_header(monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    with server(script(said("x"))) as (url, seen), endpoint(url) as client:
        client.complete(ASK)
    assert seen.keys == [None]


def test_an_answer_that_was_cut_off_says_so():
    with server(script(said("x", finish="length"))) as (url, _), endpoint(url) as client:
        assert not client.complete(ASK).whole


@pytest.mark.parametrize(
    "bad",
    [
        failed(500, "oops"),
        failed(503),
        failed(408),
        failed(429, "slow down"),
        Response(pieces=(b"<html>login</html>",)),
        Response(pieces=(b'{"choices": []}',)),
        Response(pieces=(b'{"choices": [{"message": {"content": 3}}]}',)),
    ],
)
def test_what_may_pass_is_tried_again(bad):
    with server(script(bad, bad, said("fine"))) as (url, seen), endpoint(url) as client:
        assert client.complete(ASK).text == "fine"
    assert len(seen.bodies) == 3


def test_every_pause_is_told(caplog):
    with server(script(failed(500, "oops"), said("fine"))) as (url, _), endpoint(url) as client:
        client.complete(ASK)
    (told,) = [r.getMessage() for r in caplog.records if r.name == "guardrail"]
    assert "500" in told
    assert told.endswith("trying again in 0 s (2 of 4)")
    assert KEY not in told


def test_the_pauses_grow():
    bad = failed(500)
    with server(script(bad, bad, bad, said("fine"))) as (url, seen), endpoint(url, backoff_s=0.1) as client:
        client.complete(ASK)
    first, second, third = (b - a for a, b in zip(seen.times, seen.times[1:], strict=False))
    assert first >= 0.05
    assert second >= 0.1
    assert third >= 0.2


@pytest.mark.parametrize("value", ["0.4", lambda: formatdate(time.time() + 1.4, usegmt=True)])
def test_retry_after_is_honoured_as_seconds_and_as_a_date(value):
    asked = value if isinstance(value, str) else value()
    with server(script(failed(429, Retry_After=asked), said("fine"))) as (url, seen), endpoint(url) as client:
        client.complete(ASK)
    assert seen.times[1] - seen.times[0] >= 0.35


def test_retry_after_holds_back_all_threads():
    answers = iter([failed(429, Retry_After="0.4")])
    with server(lambda _: next(answers, said("x"))) as (url, seen), endpoint(url, concurrency=1) as client:
        list(client.each([ASK] * 3))
    assert min(seen.times[1:]) - seen.times[0] >= 0.35


def test_a_wait_that_is_too_long_is_refused_at_once():
    with server(script(failed(429, "quota used up", Retry_After="86400"))) as (url, seen):
        error = refused(url)
    assert (error.status, len(seen.bodies)) == (429, 1)
    assert "limits the rate: HTTP 429 (quota used up) and asks to wait 86400 s" in str(error)


def test_a_rate_limit_that_never_ends_is_an_error():
    with server(script(failed(429, "slow down"))) as (url, seen):
        error = refused(url)
    assert (error.status, len(seen.bodies)) == (429, 4)
    assert re.search(r"limits the rate: HTTP 429 \(slow down\); gave up after 4 attempts", str(error))


def test_nonsense_for_ever_is_an_error_that_shows_how_it_begins():
    with server(script(Response(pieces=(b"<html>login</html>",)))) as (url, _):
        assert "answered nonsense: Invalid JSON" in str(error := refused(url))
    assert "<html>login" in str(error)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named_by_its_variable_and_not_tried_again(status):
    with server(script(failed(status, f"bad key {KEY}"))) as (url, seen):
        error = refused(url)
    assert f"refuses the key in $TEST_KEY: HTTP {status} (bad key ***)" in str(error)
    assert len(seen.bodies) == 1


def test_a_missing_key_is_named(monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    with server(script(failed(401))) as (url, _):
        assert "refuses the request ($TEST_KEY is not set)" in str(refused(url))


@pytest.mark.parametrize(
    ("status", "words"), [(404, "no such model"), (400, "refuses the request"), (302, "302")]
)
def test_what_no_waiting_helps_is_not_tried_again(status, words):
    with server(script(failed(status, "m?", Location="http://127.0.0.1:1/"))) as (url, seen):
        assert words in str(refused(url))
    assert len(seen.bodies) == 1


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        assert re.search(rf"{url} cannot be reached: .*; gave up after 4 attempts", str(refused(url)))


def test_a_server_that_never_answers():
    with server(script(Response(delay=0.5, pieces=(b"{}",)))) as (url, _):
        assert "did not answer within 0.1 s; gave up after 2 attempts" in str(
            refused(url, timeout_s=0.1, attempts=2)
        )


@pytest.mark.parametrize("answer", DRIPS)
def test_a_server_that_drips(answer):
    with dripping(answer) as url:
        started = time.monotonic()
        assert "did not answer within 0.2 s; gave up" in str(refused(url, timeout_s=0.2, attempts=1))
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("url", ["ftp://x/v1", "localhost:8000", "http://", "http://a:b:c"])
def test_an_address_that_is_none(url):
    with pytest.raises(ConfigError, match="address"):
        endpoint(url)


def test_a_password_in_the_address_is_not_shown():
    with server(script(failed(404))) as (url, _):
        assert "hunter2" not in str(refused(url.replace("//", "//me:hunter2@")))


def test_a_key_that_no_header_can_carry_is_not_shown(monkeypatch):
    monkeypatch.setenv("TEST_KEY", f"{KEY}\nX: é")
    with pytest.raises(ConfigError, match=r"\$TEST_KEY") as caught:
        endpoint("http://127.0.0.1:1/v1")
    assert KEY not in str(caught.value)


def test_the_key_is_not_logged_and_not_shown(caplog):
    caplog.set_level(logging.DEBUG)
    with server(script(failed(500), said("x"))) as (url, _), endpoint(url) as client:
        client.complete(ASK)
        connections = client._connections
        assert KEY not in f"{client!r} {client.settings!r} {connections!r} {connections._client!r}"
    assert caplog.text
    assert KEY not in caplog.text


def test_no_more_than_so_many_at_once():
    slow = replace(said("x"), delay=0.05)
    with server(script(slow)) as (url, seen), endpoint(url, concurrency=3) as client:
        found = sorted(i for i, _ in client.each([ASK] * 12))
    assert found == list(range(12))
    assert 1 < seen.most_busy <= 3


def test_no_more_than_so_many_a_minute():
    with server(script(said("x"))) as (url, seen), endpoint(url, requests_per_minute=600) as client:
        started = time.monotonic()
        list(client.each([ASK] * 5))
    assert seen.times[-1] - started >= 0.4


def test_answers_belong_to_their_requests():
    asked = [replace(ASK, messages=(Message("user", str(i)),)) for i in range(20)]
    with server(lambda body: said(body["messages"][0]["content"])) as (url, _), endpoint(url) as client:
        assert all(answer.text == str(i) for i, answer in client.each(asked))


def test_one_failure_ends_the_rest_without_waiting_for_them():
    def answer(body):
        return failed(401) if body["messages"][0]["content"] == "3" else failed(503)

    asked = [replace(ASK, messages=(Message("user", str(i)),)) for i in range(8)]
    with server(answer) as (url, seen), endpoint(url, concurrency=4, backoff_s=30) as client:
        started = time.monotonic()
        with pytest.raises(EndpointError, match="401"):
            list(client.each(asked))
        assert time.monotonic() - started < 10
    assert len(seen.bodies) == 4
