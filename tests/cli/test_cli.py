"""The command line as a whole: how it ends."""

import typer

from guardrail import cli


def test_an_interrupted_command_says_so_and_ends_as_shells_do(monkeypatch, capsys):
    def interrupted() -> typer.Typer:
        app = typer.Typer()

        @app.command()
        def work() -> None:
            raise KeyboardInterrupt

        return app

    monkeypatch.setattr(cli, "build", interrupted)
    assert cli.run([]) == cli.INTERRUPTED
    assert capsys.readouterr().err.startswith("interrupted;")


def test_an_interrupt_while_verbs_are_loaded_is_no_traceback(monkeypatch, capsys):
    def interrupted() -> typer.Typer:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build", interrupted)
    assert cli.run([]) == cli.INTERRUPTED
    assert capsys.readouterr().err.startswith("interrupted;")
