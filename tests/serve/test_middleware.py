"""The ASGI middleware for chatbots of one's own."""

import json
import subprocess
import sys

import httpx
import pytest
import tiny
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from guardrail.errors import ConfigError
from guardrail.pipeline.options import RequestOptions
from guardrail.serve.middleware import GuardMiddleware

PROMPTS = {"/chat": "messages", "/rooms/{room}/say": "input.0.text", "/socket": "text"}
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def passing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("passing")
    with tiny.guard(
        folder, tiny.policy(threshold=tiny.NEVER), tiny.policy(id="b", when={"tags": ["x"]})
    ) as made:
        yield made


@pytest.fixture(scope="module")
def blocking(tmp_path_factory):
    with tiny.guard(tmp_path_factory.mktemp("blocking"), tiny.policy(message="No.")) as made:
        yield made


def chatbot(guard, prompts=PROMPTS, **options):
    """An application that counts the requests it sees, and a client of it."""
    app = FastAPI()
    app.state.seen = []
    app.add_middleware(GuardMiddleware, guard=guard, prompts=prompts, **options)

    @app.api_route("/chat", methods=["GET", "POST"])
    async def chat(request: Request):
        app.state.seen.append(await request.body())
        ruling = getattr(request.state, "guardrail", None)
        return {"audit_id": ruling and ruling.audit_id}

    @app.post("/rooms/{room}/say")
    async def say(room: str):
        app.state.seen.append(room)
        return StreamingResponse(iter(["one ", "two"]), media_type="text/plain")

    @app.websocket("/socket")
    async def socket(websocket: WebSocket):
        app.state.seen.append("socket")
        await websocket.accept()

    return TestClient(app), app.state.seen


def test_what_passes_reaches_the_application_with_the_ruling(passing):
    client, seen = chatbot(passing)
    response = client.post("/chat", json=HELLO)
    assert json.loads(seen[0]) == HELLO
    assert response.headers["x-guardrail-action"] == "allow"
    assert response.json()["audit_id"] == response.headers["x-guardrail-audit-id"]


def test_a_refused_prompt_never_reaches_it(blocking):
    client, seen = chatbot(blocking)
    response = client.post("/chat", json=HELLO)
    assert (response.status_code, response.json()["detail"], seen) == (403, "No.", [])
    assert response.json()["guardrail"]["policy"] == response.headers["x-guardrail-policy"] == "test"


def test_the_application_chooses_what_a_refusal_looks_like(blocking):
    from starlette.responses import PlainTextResponse

    client, _ = chatbot(blocking, refused=lambda ruling: PlainTextResponse(f"Sorry: {ruling.text}"))
    response = client.post("/chat", json=HELLO)
    assert (response.status_code, response.text) == (200, "Sorry: No.")
    assert response.headers["x-guardrail-action"] == "block"


def test_paths_have_parameters_and_bodies_come_in_pieces(passing, blocking):
    body = json.dumps({"input": [{"text": "Hello"}]}).encode()
    pieces = (body[i : i + 5] for i in range(0, len(body), 5))
    client, seen = chatbot(passing)
    assert client.post("/rooms/a/say", content=pieces, headers=JSON).text == "one two"
    assert seen == ["a"]
    client, seen = chatbot(blocking)
    assert client.post("/rooms/a/say", content=body, headers=JSON).status_code == 403
    assert seen == []


def test_a_function_finds_the_prompt(blocking):
    client, _ = chatbot(
        blocking, {"/chat": lambda body: [*body["past"], {"role": "user", "content": body["now"]}]}
    )
    assert client.post("/chat", json={"past": [], "now": "Hello"}).status_code == 403
    assert client.post("/chat", json={"past": []}).status_code == 422


def test_tags_are_the_applications_to_give(passing):
    client, _ = chatbot(passing, about=lambda connection: RequestOptions(tags=[connection.headers["x-team"]]))
    assert client.post("/chat", json=HELLO, headers={"x-team": "y"}).status_code == 200
    assert client.post("/chat", json=HELLO, headers={"x-team": "x"}).status_code == 403


def test_other_paths_and_pages_are_left_alone(blocking):
    client, seen = chatbot(blocking, {"/chat": "messages"})
    assert client.get("/chat").status_code == 200
    assert client.post("/rooms/a/say").status_code == 200
    assert client.request("GET", "/chat", json=HELLO).status_code == 403
    assert seen == [b"", "a"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", JSON, 400),
        (b"{", JSON, 400),
        (b"[]", JSON, 422),
        (b"5", JSON, 422),
        (b"{}", JSON, 422),
        (b'{"messages": null}', JSON, 422),
        (b'{"messages": {"role": "user"}}', JSON, 422),
        (b'{"messages": []}', JSON, 400),
        (b'{"messages": ["Hello"]}', JSON, 400),
        (b'{"messages": [{"role": "wizard", "content": "x"}]}', JSON, 400),
        (b'{"messages": [], "messages": [{"role": "user", "content": "x"}]}', JSON, 400),
        (b'{"messages": "\xff"}', JSON, 400),
        (b"[" * 10_000, JSON, 400),
        (b"messages=Hello", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b" " * 2000, JSON, 413),
    ],
)
def test_a_body_without_a_prompt_never_reaches_the_application(passing, body, kind, status):
    limit = 1000 if status == 413 else 1 << 20
    client, seen = chatbot(passing, max_body=limit)
    response = client.post("/chat", content=body, headers=kind)
    assert (response.status_code, seen) == (status, [])
    assert response.json()["detail"]


def test_an_image_is_refused(passing):
    image = [{"type": "image_url", "image_url": {"url": "x"}}]
    client, seen = chatbot(passing)
    response = client.post("/chat", json={"messages": [{"role": "user", "content": image}]})
    assert (response.status_code, seen) == (403, [])
    assert response.headers["x-guardrail-status"] == "not_evaluated"


def test_a_socket_on_a_guarded_path_is_closed(passing):
    client, seen = chatbot(passing)
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket"):
        pass
    assert seen == []


async def test_a_guard_that_is_closed_lets_nothing_through(tmp_path):
    with tiny.guard(tmp_path, tiny.policy(threshold=tiny.NEVER)) as made:
        client, seen = chatbot(made)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(client.app), base_url="http://x") as http:
        assert (await http.post("/chat", json=HELLO)).status_code == 503
    assert seen == []


@pytest.mark.parametrize(("listed", "asked"), [("/rooms/{room}/say/", "/rooms/a/say"), ("/chat", "/chat/")])
def test_a_slash_at_the_end_makes_no_hole(blocking, listed, asked):
    client, seen = chatbot(blocking, {listed: "messages"})
    assert (client.post(asked, json=HELLO).status_code, seen) == (403, [])


def test_a_path_that_no_request_has_is_an_error(blocking):
    with pytest.raises(ConfigError, match="`/chat`"):
        GuardMiddleware(FastAPI(), blocking, {"chat": "messages"})


def test_it_needs_nothing_but_starlette():
    code = "import sys, guardrail.serve.middleware; print('fastapi' in sys.modules, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
