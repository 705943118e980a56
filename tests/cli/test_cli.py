"""The command line as a whole: how it ends."""

import gc
import os
import subprocess
import sys

import pytest
import typer

from guardrail import cli
from guardrail.cli.models import loading
from guardrail.cli.options import ModelOptions


def test_an_interrupted_command_says_so_and_ends_as_shells_do(monkeypatch, capsys):
    def interrupted(names: object) -> typer.Typer:
        app = typer.Typer()

        @app.command()
        def work() -> None:
            raise KeyboardInterrupt

        return app

    monkeypatch.setattr(cli, "build", interrupted)
    assert cli.run([]) == cli.INTERRUPTED
    assert capsys.readouterr().err.startswith("interrupted;")


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "a/b"), "error: a/b: No such file or directory\n"),
        (OSError(28, "No space left on device", "c"), "error: c: No space left on device\n"),
    ],
)
def test_a_file_that_no_verb_foresaw_is_an_error_and_no_traceback(trouble, said, monkeypatch, capsys):
    def broken(names: object) -> typer.Typer:
        raise trouble

    monkeypatch.setattr(cli, "build", broken)
    assert cli.run([]) == 2
    assert capsys.readouterr().err == said


def test_trouble_that_is_about_no_file_keeps_its_traceback(monkeypatch):
    def broken(names: object) -> typer.Typer:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(cli, "build", broken)
    with pytest.raises(ConnectionResetError):
        cli.run([])


def test_an_interrupt_while_a_model_is_loaded_says_that_nothing_was_done(monkeypatch, capsys):
    def interrupted(model: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("guardrail.cli.models.load", interrupted)
    assert cli.run(["check", "Hello."]) == cli.INTERRUPTED
    assert capsys.readouterr().err.endswith("interrupted while demo was loaded; nothing was done\n")


def test_an_interrupt_while_verbs_are_loaded_is_no_traceback(monkeypatch, capsys):
    def interrupted(names: object) -> typer.Typer:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build", interrupted)
    assert cli.run([]) == cli.INTERRUPTED
    assert capsys.readouterr().err.startswith("interrupted;")


@pytest.mark.parametrize(
    ("arguments", "loaded"), [("--version", []), ("check --help", ["check"]), ("nothing", list(cli.VERBS))]
)
def test_a_command_loads_no_other_verb(arguments, loaded):
    code = (
        "import sys; from guardrail import cli; cli.run(sys.argv[1:]);"
        "print(*(verb for verb in cli.VERBS if f'guardrail.cli.{verb}' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].split() == loaded


def test_nothing_is_collected_while_a_model_is_loaded():
    with loading(ModelOptions()):
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.parametrize(("given", "kept"), [(None, "passive"), ("active", "active")])
def test_threads_that_wait_sleep_unless_told_otherwise(monkeypatch, given, kept):
    # first set, so that it is taken back at the end
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    with loading(ModelOptions()):
        assert os.environ["OMP_WAIT_POLICY"] == kept
