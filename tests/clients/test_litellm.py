"""A LiteLLM proxy whose own guardrail hook calls this server, before a model that always says `Fine.`."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

pytest.importorskip("litellm.proxy", reason="needs litellm[proxy]: `make test-clients` installs it")

from loopback import running

from guardrail.demo.prompts import TOUR
from guardrail.serve.keys import Key, sha256

STOPS = {stop.expected: stop.messages for stop in TOUR}
START_S = 120
KEY = secrets.token_hex(16)


def config(server):
    """Fails closed by default; `careless` goes on after errors."""
    guard = {"guardrail": "generic_guardrail_api", "mode": "pre_call", "api_base": server, "api_key": KEY}
    return {
        "model_list": [
            {
                "model_name": "other",
                "litellm_params": {"model": "openai/other", "api_key": "none", "mock_response": "Fine."},
            }
        ],
        "guardrails": [
            {"guardrail_name": "reader", "litellm_params": {**guard, "default_on": True}},
            {"guardrail_name": "replies", "litellm_params": {**guard, "mode": "post_call"}},
            {"guardrail_name": "careless", "litellm_params": {**guard, "fail_on_error": False}},
            {"guardrail_name": "nowhere", "litellm_params": {**guard, "api_base": "http://127.0.0.1:9"}},
            {"guardrail_name": "stranger", "litellm_params": {**guard, "api_key": "other"}},
        ],
    }


@pytest.fixture(scope="module")
def server(guard):
    """A server that asks for a key."""
    with running(guard, keys=(Key(name="litellm", sha256=sha256(KEY)),)) as base:
        yield base


@pytest.fixture(scope="module")
def proxy(server, tmp_path_factory):
    """A client of the proxy."""
    folder = tmp_path_factory.mktemp("litellm")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    (folder / "config.yaml").write_text(json.dumps(config(server)))
    program = str(Path(sys.executable).with_name("litellm"))
    key = f"sk-{secrets.token_hex(32)}"
    own = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": str(folder)}
    command = [program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", port]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **own}, stdout=log, stderr=log)
    try:
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            _wait(client, process, folder / "log")
            yield client
    finally:
        process.terminate()
        process.wait(30)


def _wait(client, process, log):
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if client.get("/health/liveliness").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"the proxy did not start: {log.read_text()[-2000:]}")


def asked(proxy, messages, **fields):
    return proxy.post("/v1/chat/completions", json={"model": "other", "messages": messages, **fields})


def test_what_passes_is_answered_by_the_other_model(proxy):
    response = asked(proxy, STOPS["allow"])
    assert response.json()["choices"][0]["message"]["content"] == "Fine."
    streamed = asked(proxy, STOPS["allow"], stream=True)
    lines = [line.removeprefix("data: ") for line in streamed.text.splitlines() if line.startswith("data: {")]
    parts = [json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines]
    assert "".join(parts) == "Fine."


@pytest.mark.parametrize("action", STOPS.keys() - {"allow"})
@pytest.mark.parametrize("stream", [False, True])
def test_what_does_not_pass_never_reaches_it(proxy, action, stream):
    response = asked(proxy, STOPS[action], stream=stream)
    assert 400 <= response.status_code < 500
    assert "Fine" not in response.text
    assert ("(ticket " in response.text) is (action == "escalate")


def test_a_reply_is_refused_where_the_proxy_asks_about_it(proxy):
    response = asked(proxy, STOPS["allow"], guardrails=["replies"])
    assert response.status_code >= 400
    assert "Fine" not in response.text


def test_tools_that_the_reader_cannot_read_are_refused(proxy):
    function = {"name": "look", "description": "Look something up.", "parameters": {"type": "object"}}
    response = asked(proxy, STOPS["allow"], tools=[{"type": "function", "function": function}])
    assert 400 <= response.status_code < 500
    assert "tools" in response.text


@pytest.mark.parametrize(
    "messages", [[{"role": "user", "content": " "}], [{"role": "user", "content": "word " * 20_000}]]
)
def test_a_prompt_that_cannot_be_read_is_refused_even_if_the_proxy_goes_on_after_errors(proxy, messages):
    response = asked(proxy, messages, guardrails=["careless"])
    assert 400 <= response.status_code < 500
    assert "Fine" not in response.text


@pytest.mark.parametrize("name", ["nowhere", "stranger"])
def test_without_a_verdict_the_proxy_refuses(proxy, name):
    response = asked(proxy, STOPS["allow"], guardrails=[name])
    assert response.status_code >= 400
    assert "Fine" not in response.text
