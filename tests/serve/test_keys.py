"""API keys: files of hashes, who is let in, and which tags a request has."""

import asyncio
import json
import os
import resource
import time

import httpx
import pytest
from serving import asking, chat

from guardrail.cli import run
from guardrail.errors import DocumentError
from guardrail.serve.app import create_app
from guardrail.serve.keys import Key, add_key, load_keys, sha256
from guardrail.serve.settings import ServerSettings

PATH = "/v1/chat/completions"
ASK = Key(name="app", sha256=sha256("gr-app"))
FIXED = Key(name="public", sha256=sha256("gr-public"), tags=("outside",))


def test_a_new_key_opens_what_its_file_describes(tmp_path, capsys):
    path = tmp_path / "keys.yaml"
    assert run(["keys", "new", "app", "--keys", str(path), "--tags", "a, b"]) == 0
    key = capsys.readouterr().out.strip()
    assert run(["keys", "new", "people", "--keys", str(path), "--right", "review"]) == 0
    first, second = load_keys(path)
    assert first == Key(name="app", sha256=sha256(key), tags=("a", "b"))
    assert (second.name, second.rights, second.tags) == ("people", ("review",), None)
    assert key not in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["app", "two words", "true"])
def test_a_name_that_is_taken_or_no_name_changes_no_file(tmp_path, name):
    path = tmp_path / "keys.yaml"
    add_key(path, "app", None, ["ask"])
    before = path.read_bytes()
    assert run(["keys", "new", name, "--keys", str(path)]) == 2
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_written_is_an_error_with_its_path(tmp_path, capsys):
    path = tmp_path / "no-folder" / "keys.yaml"
    assert run(["keys", "new", "app", "--keys", str(path)]) == 2
    assert capsys.readouterr().err == f"error: {path}: cannot be written: No such file or directory\n"


def test_a_file_is_written_whole_or_stays_as_it_is(tmp_path, capsys):
    path = tmp_path / "keys.yaml"
    add_key(path, "app", None, ["ask"])
    with path.open("a") as file:
        file.write("#" * 240_000 + "\n")
    before, (least, most) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, most))
    try:
        assert run(["keys", "new", "other", "--keys", str(path)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, most))
    assert f"{path}: cannot be written: File too large" in capsys.readouterr().err
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (before, [path])


def test_every_problem_of_a_file_has_its_place(tmp_path):
    path = tmp_path / "keys.yaml"
    text = "version: 1\nkeys:\n  a: {sha256: 12, right: [x]}\n  b: {}\nrights: []\n"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DocumentError) as caught:
        load_keys(path)
    assert str(caught.value).splitlines() == [
        f"{path}:3:7: keys.a.sha256: must be text, not 12",
        f"{path}:3:19: keys.a.right: unknown key; did you mean `rights`?",
        f"{path}:4:3: keys.b.sha256: is missing",
        f"{path}:5:1: rights: unknown key; known: keys, version",
    ]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "invalid_api_key"),
        ({"authorization": "Bearer gr-apq"}, "invalid_api_key"),
        ({"authorization": "Basic gr-app"}, "invalid_api_key"),
        ({"authorization": "Bearer é".encode("latin-1")}, "invalid_api_key"),
    ],
)
async def test_without_a_known_key_nothing_is_answered(serving, headers, code):
    async with serving(keys=(ASK,)) as http:
        response = await http.post(PATH, json=chat(), headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (401, code)


@pytest.mark.parametrize("headers", [{"authorization": "Bearer gr-app"}, {"x-api-key": "gr-app"}])
async def test_a_known_key_is_let_in(serving, headers):
    async with serving(keys=(FIXED, ASK)) as http:
        assert (await http.get("/v1/models", headers=headers)).status_code == 200


async def test_a_key_has_so_many_requests_at_once(serving):
    key = Key(name="app", sha256=sha256("gr-app"), parallel=1)
    async with serving(keys=(key,)) as http:
        asked = [http.post(PATH, json=chat(), headers={"x-api-key": "gr-app"}) for _ in range(3)]
        responses = await asyncio.gather(*asked)
    assert sorted(response.status_code for response in responses) == [200, 429, 429]
    refused = next(response for response in responses if response.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("headers", "metadata", "tags", "conversation"),
    [
        ({}, None, (), None),
        ({}, {"tags": "a, b", "conversation": "c1"}, ("a", "b"), "c1"),
        ({"x-guardrail-tags": "h", "x-guardrail-conversation": "c2"}, {"tags": "a"}, ("h",), "c2"),
    ],
)
async def test_headers_win_over_metadata(client, records, headers, metadata, tags, conversation):
    await client.post(PATH, json=chat(metadata=metadata), headers=headers)
    assert records.ended[-1].tags == tags
    assert conversation in (None, records.ended[-1].conversation)


async def test_tags_in_several_lines_all_count(client, records):
    lines = [("x-guardrail-tags", "a, ,b"), ("x-guardrail-tags", "c")]
    await client.post(PATH, json=chat(metadata={"tags": "d"}), headers=lines)
    assert records.ended[-1].tags == ("a", "b", "c")


@pytest.mark.parametrize(
    "name",
    [
        *("x-guardrail-conversation", "x-guardrail-ticket", "x-guardrail-decision"),
        *("authorization", "x-api-key", "content-type"),
    ],
)
async def test_a_header_with_two_values_is_refused_and_the_same_twice_is_not(serving, name):
    good = {"content-type": "application/json", "x-guardrail-decision": "true"}
    good |= {"authorization": "Bearer gr-app"} if name == "authorization" else {"x-api-key": "gr-app"}
    async with serving(keys=(ASK,)) as http:
        for other, status in (("Bearer gr-other", 400), (good.get(name, "x"), 200)):
            headers = [*good.items(), (name, other), *([] if name in good else [(name, "x")])]
            response = await http.post(PATH, content=json.dumps(chat()), headers=headers)
            assert response.status_code == status
            assert status == 200 or response.json()["error"]["param"] == name


async def test_a_key_can_fix_the_tags(serving, records):
    async with serving(keys=(FIXED,)) as http:
        key = {"x-api-key": "gr-public"}
        assert (await http.post(PATH, json=chat(), headers=key)).status_code == 200
        refused = await http.post(PATH, json=chat(metadata={"tags": "inside"}), headers=key)
    assert records.ended[-1].tags == ("outside",)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "tags_not_allowed")


async def test_keys_are_reloaded_as_a_whole_and_the_last_good_ones_stay(guard, tmp_path, caplog):
    path = tmp_path / "keys.yaml"
    ann, eve = (add_key(path, name, None, ["admin"]) for name in ("ann", "eve"))
    app = create_app(guard, ServerSettings(keys=load_keys(path), keys_file=path))
    ring = app.state.service.keys
    async with asking(app) as http:

        async def models(key):
            return (await http.get("/v1/models", headers={"x-api-key": key})).status_code

        assert await models(eve) == 200
        *kept, _ = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(kept), encoding="utf-8")
        ring.look()
        assert (await models(ann), await models(eve), ring.names) == (200, 401, ["ann"])
        for wrong in ("version: 1\nkeys: {}\n", "version: 1\nkeys: {ann: {}}\n", ""):
            path.write_text(wrong, encoding="utf-8")
            answer = await http.post("/admin/reload", headers={"x-api-key": ann})
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, "keys_refused")
            assert answer.json()["error"]["problems"][0].startswith(f"{path}:")
            assert answer.json()["keys"] == ["ann"]
            assert "API keys were not reloaded" in caplog.text
            assert (await http.get("/readyz")).json()["keys_failing"] is True
            assert await models("gr-wrong") == 401
        path.unlink()
        ring.look()
        assert (await models(ann), await models("gr-wrong")) == (200, 401)
        os.mkfifo(path)
        assert "is a pipe or a device" in str(ring.reload())
        assert (await models(ann), await models("gr-wrong")) == (200, 401)
        path.unlink()
        path.write_text("".join(kept), encoding="utf-8")
        bob = add_key(path, "bob", None, ["ask"])
        answer = await http.post("/admin/reload", headers={"x-api-key": ann})
        assert (answer.status_code, answer.json()["keys"], await models(bob)) == (200, ["ann", "bob"], 200)
        assert (await http.get("/readyz")).json()["keys_failing"] is False


async def test_a_running_server_looks_at_its_key_file(running, tmp_path):
    path = tmp_path / "keys.yaml"
    first = add_key(path, "first", None, ["ask"])
    server = running(keys=load_keys(path), keys_file=path)
    path.unlink()
    second = add_key(path, "second", None, ["ask"])
    until = time.monotonic() + 20
    async with httpx.AsyncClient(base_url=server.url) as http:
        while (await http.get("/v1/models", headers={"x-api-key": second})).status_code == 401:
            assert time.monotonic() < until
            await asyncio.sleep(0.1)
        assert (await http.get("/v1/models", headers={"x-api-key": first})).status_code == 401
