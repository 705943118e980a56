"""`serve`: what is wrong is said before a model is loaded; a server starts, answers and ends."""

import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from guardrail.cli import run
from guardrail.cli.options import ModelOptions
from guardrail.cli.serve_options import AddressOptions, AnswerOptions, OperationsOptions, server_settings

START = "from guardrail.cli import main; main()"


@pytest.fixture
def taken():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--host 0.0.0.0", "error: 0.0.0.0 can be reached from other machines: name API keys with --keys"),
        ("--host 10.255.255.1 --without-keys", "cannot listen on 10.255.255.1, port 8000: "),
        ("--host nowhere.invalid --without-keys", "cannot listen on nowhere.invalid, port 8000: "),
        ("--blocks no", "--blocks"),
        ("--port 70000", "--port"),
        ("--queue 0", "--queue"),
        ("--without-keys --keys keys.yaml", "leave out one of them"),
        ("--name ", "--name: a model without a name"),
        ("--allow-origin example.com", "--allow-origin: `example.com` is not an origin"),
        ("--allow-origin https://example.com/chat", "--allow-origin: `https://example.com/chat` is not an"),
        ("--keys no-such-file.yaml", "no-such-file.yaml: cannot be read: No such file or directory"),
    ],
)
def test_what_is_wrong_is_said_at_once(capsys, arguments, says):
    assert run(["serve", *arguments.split(" ")]) == 2
    assert says in capsys.readouterr().err


def test_a_port_that_is_taken_is_said_at_once(capsys, taken):
    assert run(["serve", "--port", str(taken)]) == 2
    assert f"cannot listen on 127.0.0.1, port {taken}: address already in use" in capsys.readouterr().err


def test_a_policy_file_that_is_wrong_keeps_the_server_from_starting(tmp_path, capsys):
    path = tmp_path / "policies.yaml"
    path.write_text("version: 1\npolices: []\n", encoding="utf-8")
    assert run(["serve", "--port", "0", "--policies", str(path)]) == 2
    assert f"{path}:2:1: polices: unknown key" in capsys.readouterr().err


def test_an_engine_that_nobody_has_is_said_before_a_model_is_loaded(capsys):
    assert (
        run(["serve", "--port", "0", "--model", "no/such-model", "--policies", "observe", "--engine", "no"])
        == 2
    )
    assert "no plugin provides the engine `no`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
        ("{}/a.b-Q4.gguf", "a.b-Q4"),
        ("{}", "folder"),
    ],
)
def test_the_model_has_its_own_name(tmp_path, model, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.b-Q4.gguf").touch()
    options = AddressOptions(), AnswerOptions(), OperationsOptions()
    assert server_settings(ModelOptions(name=model.format(folder)), *options).model == name


def test_only_the_server_needs_the_packages_of_its_extra():
    code = (
        "import sys; from guardrail import cli; cli.run(['--help']); cli.run(['audit', 'verify', 'nothing']);"
        "assert not {'fastapi', 'starlette', 'uvicorn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr("guardrail.cli.serve.NEEDED", ("fastapi", "no_such_package"))
    assert run(["serve"]) == 2
    assert "needs no_such_package: pip install 'persona-guardrail[serve]'" in capsys.readouterr().err


def test_a_server_starts_answers_and_ends_with_sigterm(processes):
    script = f"import sys; sys.argv = ['guardrail', 'serve', '--port', '0', '--json']; {START}"
    with processes.start(script) as process:
        begun = json.loads(process.stdout.readline())
        assert begun["policies"] == ["no-malice", "to-a-person", "careful-facts", "less-flattery"]
        assert (begun["model"], begun["engine"], begun["audit"]) == ("demo", "transformers-batching", [])
        assert (begun["fail_open"], begun["keys"]) == ([], [])
        body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        response = httpx.post(begun["url"] + "/chat/completions", json=body, timeout=30)
        assert response.status_code == 200
        assert response.headers["x-guardrail-status"] == "evaluated"
        os.kill(process.pid, signal.SIGTERM)
        code, _, errors = process.end()
    assert code == 0, errors
