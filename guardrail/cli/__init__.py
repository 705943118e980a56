"""The command line. Each verb is a plugin with the hook `guardrail_cli`, one module or package per verb.

Nothing here imports torch before a verb needs a model. A verb raises `typer.Exit(1)` for a finding. An error
of guardrail's own is printed, and the exit code is 2, but 1 for a useless judge: that is a finding, too.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Annotated

import typer

from guardrail.cli.console import INTERRUPTED, Interrupted
from guardrail.cli.signals import ended_in_order
from guardrail.errors import DocumentError, GuardrailError, UselessJudge

VERBS = (
    *("demo", "chat", "check", "serve", "calibrate", "evaluate", "bench", "policy", "traits", "judge"),
    *("certify", "vectors", "data", "train", "interpret", "audit", "plugins", "packs", "keys"),
)
"""In the order of `guardrail --help`, which puts those with subcommands last."""


def build(names: Sequence[str] = VERBS) -> typer.Typer:
    """The application with these built-in verbs and those of the plugins in GUARDRAIL_PLUGINS."""
    from guardrail.plugins.registry import Registry, names_in_environment

    app = typer.Typer(
        name="guardrail",
        help="Check a local language model's activations before it replies, and act on what they show.",
        epilog="Start with `guardrail demo`. `guardrail COMMAND --help` shows the options of a command.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    list(Registry(verbs(names), names_in_environment(), built_ins=()).calls("guardrail_cli", app=app))
    return app


def verbs(names: Sequence[str] = VERBS) -> list[ModuleType]:
    """The plugins of built-in verbs."""
    return [import_module(f"{__name__}.{verb}") for verb in names]


def needed(arguments: Sequence[str]) -> Sequence[str]:
    """The built-in verbs that a command line needs: its own, or all if help or a suggestion lists them."""
    first = next(iter(arguments), "")
    return () if first == "--version" else (first,) if first in VERBS else VERBS


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=lambda on: _version(on)
        ),
    ] = False,
) -> None:
    return


def _version(asked: bool) -> None:
    if asked:
        from guardrail import __version__

        typer.echo(f"guardrail {__version__}")
        raise typer.Exit


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 success, 1 a finding, 2 a usage error, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with _logged():
            build(needed(given))(args=given, prog_name="guardrail")
    except GuardrailError as error:
        print(error if _places(error) else f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, UselessJudge) else 2
    except OSError as error:
        if error.filename is None:
            raise
        # a file that nobody looked at before the work: a folder that is not there, a full disk, no rights
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except Interrupted as interrupted:
        print(interrupted.told, file=sys.stderr)
        return INTERRUPTED
    except SystemExit as ending:
        return _ended(ending.code if isinstance(ending.code, int) else int(bool(ending.code)))
    except KeyboardInterrupt:
        return _ended(INTERRUPTED)
    return 0


def _places(error: GuardrailError) -> bool:
    """Whether an error begins with a line of a file, as compilers write it."""
    return isinstance(error, DocumentError) and error.problems[0].line is not None


@contextmanager
def _logged() -> Generator[None]:
    """What guardrail logs is said like the other messages of a command."""
    log, handler = logging.getLogger("guardrail"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _ended(code: int) -> int:
    if code == INTERRUPTED:
        print("interrupted; commands that keep their work resume when they are run again", file=sys.stderr)
    return code


def main() -> None:
    """The entry point `guardrail`. Signals that end it exit with 128 + the signal."""
    if not sys.stderr.isatty():
        # read when tqdm is imported; its bar for GGUF files goes past the settings of transformers
        os.environ.setdefault("TQDM_DISABLE", "1")
    sys.exit(ended_in_order(run))
