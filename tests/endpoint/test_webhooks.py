"""Signed messages: as the standard says, sent once, and every failure in words."""

import asyncio
import base64
import hashlib
import hmac
import socket
import time

import pytest
from endpoints import DRIPS, Response, dripping, failed, script, server

from guardrail.endpoint.webhooks import Undelivered, secret_from, send, signed
from guardrail.errors import ConfigError

SECRET = b"a secret of 20 bytes"
OK = Response(204)


def test_a_signature_is_that_of_the_standard(monkeypatch):
    monkeypatch.setenv("SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', secret_from("SECRET"), 1614265330
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-id"] == headers["idempotency-key"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_the_receiver_can_check_what_it_gets():
    with server(script(OK)) as (url, seen):
        send(url, "t-1", b'{"a": 1}', SECRET, 5.0)
    (headers,) = seen.headers
    stamp = headers["webhook-timestamp"]
    assert abs(int(stamp) - time.time()) < 60
    digest = hmac.new(SECRET, b"t-1." + stamp.encode() + b"." + seen.raw[0], hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize("text", ["", "short", "whsec_", "whsec_?", "whsec_YWJj"])
def test_a_secret_that_is_none_is_refused_and_not_shown(monkeypatch, text):
    monkeypatch.setenv("SECRET", text)
    with pytest.raises(ConfigError, match=r"\$SECRET must hold a secret of at least 16 bytes") as caught:
        secret_from("SECRET")
    assert not text or text not in str(caught.value)


def test_redirects_are_not_followed():
    with (
        server(script(OK)) as (other, there),
        server(script(Response(307, headers={"Location": other}))) as (url, _),
        pytest.raises(Undelivered, match="HTTP 307: redirects are not followed"),
    ):
        send(url, "t-1", b"{}", SECRET, 5.0)
    assert there.bodies == []


@pytest.mark.parametrize(
    ("answer", "message", "retry_after"),
    [
        (failed(500), "HTTP 500", None),
        (failed(429, Retry_After="7"), "HTTP 429", 7.0),
        (Response(200, delay=0.6), "did not answer within 0.2 s", None),
    ],
)
def test_what_the_receiver_does_not_take_is_told(answer, message, retry_after):
    with server(script(answer)) as (url, _), pytest.raises(Undelivered, match=message) as caught:
        send(url, "t-1", b"{}", SECRET, 0.2)
    assert caught.value.retry_after == retry_after


def test_nobody_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(Undelivered, match="cannot be reached"):
            send(url, "t-1", b"{}", SECRET, 5.0)


def test_a_receiver_that_drips_is_given_up_at_the_time_limit():
    """Each byte comes in time, but the head of the answer never ends."""
    with dripping(DRIPS[0]) as url:
        start = time.monotonic()
        with pytest.raises(Undelivered, match=r"did not answer within 0.2 s"):
            send(url, "t-1", b"{}", SECRET, 0.2)
        assert time.monotonic() - start < 2


def test_it_can_be_sent_from_a_thread_that_runs_an_event_loop():
    async def sent(url):
        send(url, "t-1", b"{}", SECRET, 5.0)

    with server(script(OK)) as (url, seen):
        asyncio.run(sent(url))
    assert len(seen.raw) == 1
