"""The command line, one file per verb. Nothing here imports torch before a verb needs a model.

Every file has `register(app)`, which adds its verb; plugins add theirs through the hook `guardrail_cli`.
A verb ends with `typer.Exit(1)` for a finding; an error of guardrail's own is printed and ends with 2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import typer

from guardrail.errors import GuardrailError, PolicyError, TraitError

VERBS = (
    *("demo", "chat", "check", "calibrate", "evaluate", "bench", "policy", "traits", "judge", "vectors"),
    *("audit", "plugins"),
)
"""In the order of `guardrail --help`."""
INTERRUPTED = 130
"""The exit code after Ctrl-C, as in shells."""


def build() -> typer.Typer:
    """The application with all verbs."""
    app = typer.Typer(
        name="guardrail",
        help="Reads a local language model's mind before it speaks, and acts on what it finds.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for verb in VERBS:
        if find_spec(f"{__name__}.{verb}"):
            import_module(f"{__name__}.{verb}").register(app)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 success, 1 a finding, 2 a usage error, 130 interrupted."""
    try:
        build()(args=arguments, prog_name="guardrail")
    except GuardrailError as error:
        print(error if isinstance(error, PolicyError | TraitError) else f"error: {error}", file=sys.stderr)
        return 2
    except SystemExit as ending:
        return _ended(ending.code if isinstance(ending.code, int) else int(bool(ending.code)))
    except KeyboardInterrupt:
        return _ended(INTERRUPTED)
    return 0


def _ended(code: int) -> int:
    if code == INTERRUPTED:
        print("interrupted; work that is kept goes on with the same command", file=sys.stderr)
    return code


def main() -> None:
    """The entry point `guardrail`."""
    sys.exit(run())
