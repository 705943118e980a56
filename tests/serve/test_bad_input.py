"""Requests that nobody can answer: an error in the shape of the OpenAI API that says what to change."""

import json
import tracemalloc
from time import process_time

import pytest
from serving import HARMLESS, chat

PATH = "/v1/chat/completions"
TEXT = "messages[0].content[0].text"
JSON = {"content-type": "application/json"}


def without(*names):
    return {name: value for name, value in chat().items() if name not in names}


@pytest.mark.parametrize(
    ("body", "status", "code", "param", "says"),
    [
        (without("model"), 400, "missing_required_parameter", "model", "Missing required parameter"),
        (chat(model="gpt-5"), 404, "model_not_found", "model", "this server has `demo`"),
        (chat(model=None), 400, "invalid_type", "model", "expected a string, but got null"),
        (without("messages"), 400, "missing_required_parameter", "messages", "Missing required"),
        (chat("hi"), 400, "invalid_type", "messages", "expected an array, but got a string"),
        (chat([]), 400, "invalid_value", "messages", "it is empty"),
        (chat(["hi"]), 400, "invalid_type", "messages[0]", "expected an object, but got a string"),
        (
            chat([{"role": "robot", "content": "x"}]),
            400,
            "invalid_prompt",
            "messages[0]",
            "assistant, tool, developer",
        ),
        (chat([*HARMLESS, {"content": "x"}]), 400, "invalid_prompt", "messages[1]", "missing role"),
        (chat([{"role": "user", "content": " "}]), 400, "invalid_prompt", "messages[0]", "is empty"),
        (chat([{"role": "user"}]), 400, "missing_required_parameter", "messages[0].content", "Missing"),
        (chat([{"role": "user", "content": 5}]), 400, "invalid_type", "messages[0].content", "a string or"),
        (chat([{"role": "user", "content": ["x"]}]), 400, None, "messages[0].content[0]", "an object"),
        (chat([{"role": "user", "content": [{"type": "text"}]}]), 400, None, TEXT, "Missing"),
        (chat(temperature="hot"), 400, "invalid_type", "temperature", "expected a number"),
        (chat(temperature=3), 400, "invalid_value", "temperature", "less than or equal to 2"),
        (chat(temperature=True), 400, "invalid_type", "temperature", "got a boolean"),
        (chat(max_tokens=0), 400, "invalid_value", "max_tokens", "greater than or equal to 1"),
        (chat(max_tokens=10**6), 400, "integer_above_max_value", "max_tokens", "at most 4096"),
        (chat(max_tokens=1.5), 400, "invalid_type", "max_tokens", "expected an integer"),
        (chat(stop=5), 400, "invalid_type", "stop", "expected a string or an array, but got a number"),
        (chat(stop=""), 400, "invalid_value", "stop", "not empty"),
        (chat(top_logprobs=2), 400, "invalid_value", "top_logprobs", "needs `logprobs: true`"),
        (chat(logit_bias={"5": 1000}), 400, "invalid_value", "logit_bias", "between -100 and 100"),
        (chat(logit_bias={"5": 1, " 5": -1}), 400, "invalid_value", "logit_bias", "not ' 5'"),
        (chat(logit_bias={"1_0": 1}), 400, "invalid_value", "logit_bias", "numbers, not"),
        (chat(logit_bias={"999999": 1}), 400, "invalid_value", "logit_bias", "does not have"),
        (chat(temperature=1e-320, n=2), 200, None, None, None),
        (chat(stop=["x"] * 65), 400, "invalid_value", "stop", "at most 64 items"),
        (chat(stop=["x"] * 64), 200, None, None, None),
        (chat(stop=[1]), 400, "invalid_type", "stop[0]", "expected a string"),
        (chat(stream="yes"), 400, "invalid_type", "stream", "expected a boolean"),
        (chat(stream_options={"include_usage": True}), 400, None, "stream_options", "only allowed when"),
        (chat(metadata={"a": 1}), 400, "invalid_type", "metadata.a", "expected a string"),
        (chat(metadata={"a": "x" * 513}), 400, "invalid_value", "metadata.a", "at most 512 characters"),
        (chat(metadata={"k" * 65: "x"}), 400, "invalid_value", f"metadata.{'k' * 65}", "at most 64"),
        (
            chat(metadata=dict.fromkeys("abcdefghijklmnopq", "x")),
            400,
            "invalid_value",
            "metadata",
            "at most 16",
        ),
        (chat(seed=-(2**63)), 200, None, None, None),
        (chat(modalities=["audio"]), 400, "unsupported_parameter", "modalities", "leave it out"),
        (chat(reasoning_effort="high"), 400, "unsupported_parameter", "reasoning_effort", "leave it out"),
        (chat(functions=[{"name": "f"}]), 400, "unsupported_parameter", "functions", "leave it out"),
        (chat(function_call="none", verbosity="medium"), 200, None, None, None),
        (chat(frob=1), 400, None, None, "Unrecognized request argument supplied: frob"),
        (chat(frob=1, nob=2), 400, None, None, "arguments supplied: frob, nob"),
        ([], 400, None, None, "JSON object"),
        (None, 400, None, None, "JSON object"),
    ],
)
async def test_an_error_says_what_to_change(client, body, status, code, param, says):
    response = await client.post(PATH, content=json.dumps(body), headers=JSON)
    assert response.status_code == status, response.text
    if status != 200:
        error = response.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["type"], error["param"]) == ("invalid_request_error", param)
        assert code in (None, error["code"])
        assert says in error["message"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "JSON object"),
        (b"{", "not JSON"),
        (b'{"model": "demo" "x"}', "not JSON"),
        (b'{"model": "d\xff"}', "not UTF-8"),
        (b'{"model": "demo\x01"}', "Invalid control character"),
        (rb'{"model": "\ud800"}', "unpaired surrogate"),
        (b'{"model": "demo", "model": "other"}', "the key `model` appears twice"),
        (b'{"messages": [{"role": "user", "role": "system"}]}', "the key `role` appears twice"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "too long"),
        (b"[" * 10_000 + b"]" * 10_000, "nested too deeply"),
        (b'{"a":' * 10_000, "nested too deeply"),
        (b'{"temperature": NaN, "model": "demo", "messages": [{}]}', "should be a finite number"),
        (b'{"temperature": 1e999, "model": "demo", "messages": [{}]}', "finite"),
    ],
)
async def test_a_body_that_is_not_sound_json_is_refused(client, body, says):
    start = process_time()
    response = await client.post(PATH, content=body, headers=JSON)
    assert response.status_code == 400
    assert says in response.json()["error"]["message"]
    assert process_time() - start < 1


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_has_to_say_that_it_is_json(client, kind):
    headers = {"content-type": kind} if kind else {}
    response = await client.post(PATH, content=json.dumps(chat()), headers=headers)
    assert response.status_code == 415
    assert "application/json" in response.json()["error"]["message"]


async def test_a_compressed_body_is_refused(client):
    for coding in ("gzip", "identity, br", "identity\t, deflate"):
        response = await client.post(PATH, json=chat(), headers={"content-encoding": coding})
        assert response.status_code == 415
        assert "uncompressed" in response.json()["error"]["message"]
    for coding in ("", "Identity"):
        response = await client.post(PATH, json=chat(), headers={"content-encoding": coding})
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "param", "says"),
    [
        ("guard/check", {"input": []}, "input", "it is empty"),
        ("responses", {"model": "demo", "input": []}, "input", "it is empty"),
        ("responses", {"model": "demo", "input": " "}, "input", "is empty"),
        ("responses", {"model": "demo", "input": [*HARMLESS, {"role": "x", "content": "y"}]}, "input[1]", ""),
        (
            "responses",
            {"model": "demo", "instructions": "Be brief.", "input": [{"role": "user", "content": " "}]},
            "input[0]",
            "is empty",
        ),
        (
            "responses",
            {"model": "demo", "stream": True, "instructions": "Be brief.", "input": " "},
            "input",
            "is empty",
        ),
        ("guard/check", {"input": HARMLESS}, "input[0]", "wrap the messages"),
        ("guard/check", {"input": ["x"] * 3000}, "input", "takes 2000"),
        ("completions", {"model": "demo", "prompt": ["x"] * 200}, "prompt", "200 replies"),
        ("guard/tickets/x/resolve", {"decision": "answer"}, "answer", "Missing"),
        ("guard/tickets/x/resolve", {"decision": "approve", "answer": "x"}, "answer", "goes only with"),
    ],
)
async def test_other_bodies_are_described_as_well(client, path, body, param, says):
    error = (await client.post(f"/v1/{path}", json=body)).json()["error"]
    assert error["param"] == param
    assert says in error["message"]


@pytest.mark.parametrize(
    ("query", "param", "says"),
    [
        ("?state=approved", "state", "'pending'"),
        ("?limit=-1", "limit", "greater than or equal to 1"),
        ("/x?wait_s=500", "wait_s", "less than or equal to 120"),
        ("/x?wait_s=abc", "wait_s", "valid number"),
    ],
)
async def test_a_bad_query_says_which_part(client, query, param, says):
    response = await client.get(f"/v1/guard/tickets{query}")
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert says in error["message"]


async def test_the_id_of_a_conversation_is_not_too_long_to_keep(client):
    name = "x-guardrail-conversation"
    assert (await client.post(PATH, json=chat(), headers={name: "x" * 512})).status_code == 200
    response = await client.post(PATH, json=chat(), headers={name: "x" * 513})
    assert (response.status_code, response.json()["error"]["param"]) == (400, name)


async def test_a_header_that_says_neither_yes_nor_no_is_refused(client):
    response = await client.post(PATH, json=chat(), headers={"x-guardrail-decision": "maybe"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "x-guardrail-decision")


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_of_a_gigabyte_is_refused_at_once(client, declared):
    read = 0

    async def endless():
        nonlocal read
        for _ in range(1 << 14):
            read += 1 << 16
            yield b" " * (1 << 16)

    headers = JSON | ({"content-length": str(1 << 30)} if declared else {})
    tracemalloc.start()
    start = process_time()
    response = await client.post(PATH, content=endless(), headers=headers)
    seconds, (_, peak) = process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
    assert seconds < 1
    assert peak < 32 << 20
    assert read <= (0 if declared else (4 << 20) + (1 << 17))


async def test_ten_thousand_messages_are_refused_at_once(client):
    start = process_time()
    response = await client.post(PATH, json=chat(HARMLESS * 10_000))
    assert process_time() - start < 1
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "messages")
    assert "takes 2000" in error["message"]


async def test_images_are_the_policies_concern(client):
    """`unsupported_input` decides: a block is an answer of the guard, not an error of the request."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    parts = [{"type": "text", "text": "What is this?"}, image]
    response = await client.post(PATH, json=chat([{"role": "user", "content": parts}]))
    assert response.status_code == 200
    assert response.headers["x-guardrail-action"] == "block"
    assert response.headers["x-guardrail-status"] != "evaluated"
    assert response.json()["choices"][0]["finish_reason"] == "content_filter"
    field = response.json()["guardrail"]
    assert (field["policy"], field["reason"]) == (None, "content parts of type image_url cannot be read")
    assert response.headers["x-guardrail-reason"] == field["reason"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", PATH, 405),
        ("POST", f"{PATH}/", 404),
        ("POST", "/v1/images", 404),
        ("GET", "/v1/models/other", 404),
        ("PUT", "/v1", 404),
    ],
)
async def test_what_is_not_there_is_said(client, method, path, status):
    response = await client.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:8000"}, 421),
        ({"host": "localhost:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://localhost", "host": "localhost"}, 200),
    ],
)
async def test_web_pages_cannot_use_a_server_without_keys(client, headers, status):
    assert (await client.get("/v1/models", headers=headers)).status_code == status


async def test_a_page_that_is_allowed_may_call(serving):
    asked = {"origin": "https://mine.example", "access-control-request-method": "POST"}
    async with serving(origins=("https://mine.example",)) as http:
        response = await http.options(PATH, headers=asked)
        assert response.headers["access-control-allow-origin"] == "https://mine.example"
        assert (await http.get("/v1/models", headers=asked)).status_code == 200
