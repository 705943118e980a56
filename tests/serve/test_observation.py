"""The log and the counters of responses: one line for each request, nothing of its text."""

import hashlib
import json
import logging
import sys
from io import StringIO

import pytest
from serving import CRUEL, asking, chat
from tiny import NEVER, guard, policy

from guardrail.serve.app import create_app
from guardrail.serve.keys import Key
from guardrail.serve.logs import JsonLines, Lines, logging_to_stderr
from guardrail.serve.metrics import Metrics
from guardrail.serve.settings import ServerSettings

SECRET = "swordfish"


@pytest.fixture
def lines(monkeypatch):
    """What was logged as JSON since the last call."""
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    def logged():
        found = stream.getvalue().splitlines()
        stream.seek(0)
        stream.truncate()
        return [json.loads(line) for line in found]

    with logging_to_stderr("json"):
        yield logged


async def test_a_request_is_one_line_with_its_verdict(client, lines):
    reply = (await client.post("/v1/chat/completions", json=chat(CRUEL))).headers
    (line,) = lines()
    assert {name: line[name] for name in ("level", "message", "method", "route", "http")} == {
        "level": "info",
        "message": "request",
        "method": "POST",
        "route": "/v1/chat/completions",
        "http": 200,
    }
    assert (line["action"], line["policy"], line["status"]) == ("block", "no-malice", "evaluated")
    assert line["audit_id"] == reply["x-guardrail-audit-id"]
    assert 0 < line["first_ms"] <= line["ms"]


async def test_a_stream_is_one_line_at_its_end(client, lines):
    assert (await client.post("/v1/chat/completions", json=chat(stream=True))).status_code == 200
    (line,) = lines()
    assert (line["action"], line["http"]) == ("allow", 200)
    assert line["first_ms"] < line["ms"]


async def test_what_users_send_is_not_logged(client, lines):
    body = chat([{"role": "user", "content": SECRET}], user=SECRET)
    for path in ("/v1/chat/completions", f"/v1/{SECRET}", f"/v1/models?key={SECRET}"):
        await client.post(
            path, json=body, headers={"authorization": SECRET, "x-guardrail-conversation": SECRET}
        )
        await client.get(path)
    found = lines()
    assert len(found) == 6
    assert SECRET not in json.dumps(found)
    assert {line["route"] for line in found} == {"/v1/chat/completions", "/v1/models", "other"}


async def test_the_name_of_a_key_is_logged_and_refusals_are(guard, lines):
    key = Key(name="shop", sha256=hashlib.sha256(b"secret").hexdigest())
    app = create_app(guard, ServerSettings(keys=(key,)))
    for given in ("secret", "wrong"):
        async with asking(app, authorization=f"Bearer {given}") as http:
            await http.get("/v1/models")
    found = [(line.get("key"), line["http"], line["route"]) for line in lines()]
    assert found == [("shop", 200, "/v1/models"), (None, 401, "/v1/models")]


async def test_questions_about_health_are_logged_only_if_they_fail(client, lines):
    await client.get("/healthz")
    assert (await client.head("/healthz")).status_code == 200
    assert lines() == []
    assert (await client.get("/readyz")).status_code in (200, 503)
    assert all(line["http"] == 503 for line in lines() if line["message"] == "request")


def record(message, error=None, **fields):
    made = logging.LogRecord(
        "guardrail.serve", logging.WARNING, "", 0, message, (), error and (type(error), error, None)
    )
    made.guardrail_fields = fields
    return made


def test_exceptions_are_logged_without_what_they_say():
    for form in (JsonLines(), Lines()):
        line = form.format(record("failed", ValueError(f"the prompt {SECRET}")))
        assert "ValueError" in line
        assert SECRET not in line


def test_a_line_is_a_line_whatever_is_in_it():
    bad = record("one\ntwo \ud800", policy="p")
    assert "\n" not in Lines().format(bad)
    assert json.loads(JsonLines().format(bad))["policy"] == "p"
    assert "policy=p" in Lines().format(bad)


def test_loggers_are_as_they_were_afterwards():
    log = logging.getLogger("guardrail")
    before = (log.handlers, log.level, log.propagate)
    with logging_to_stderr("text"):
        assert not log.propagate
    assert (log.handlers, log.level, log.propagate) == before


@pytest.fixture
def counted(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER), options={"plugins": [Metrics()]}) as made:
        yield made


async def test_metrics_are_a_page_that_counts_responses_by_route(counted):
    async with asking(create_app(counted, ServerSettings())) as http:
        for path in ("/v1/models", "/no/such", "/neither"):
            await http.get(path)
        page = await http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    assert 'guardrail_http_responses_total{route="/v1/models",status="200"} 1.0' in page.text
    assert 'guardrail_http_responses_total{route="other",status="404"} 2.0' in page.text
    assert "guardrail_policies_info{" in page.text


async def test_metrics_need_a_key_with_the_right_unless_they_are_open(counted):
    rights = ("ask", "metrics")
    keys = tuple(Key(name=r, sha256=hashlib.sha256(r.encode()).hexdigest(), rights=(r,)) for r in rights)
    for open_metrics, expected in ((False, (401, 403, 200)), (True, (200, 200, 200))):
        app = create_app(counted, ServerSettings(keys=keys, open_metrics=open_metrics))
        for given, status in zip(("", "ask", "metrics"), expected, strict=True):
            async with asking(app, authorization=f"Bearer {given}") as http:
                assert (await http.get("/metrics")).status_code == status


async def test_a_guard_that_counts_nothing_says_how_to_count(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        async with asking(create_app(made, ServerSettings())) as http:
            answer = await http.get("/metrics")
    assert answer.status_code == 404
    assert "plugins=[Metrics()]" in answer.json()["error"]["message"]
