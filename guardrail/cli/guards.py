"""A guard for a verb: policies found before the model is loaded, and no chatter of the libraries below."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.console import errors

if TYPE_CHECKING:
    from guardrail import Guard

DEMO = "demo"


def open_guard(model: str, policies: Path | dict[str, object] | None) -> Guard:
    """Load and guard a model. Raises ConfigError; only the built-in model has policies of its own."""
    from guardrail.policy.loading import default_policies

    source = policies or default_policies(model)
    # transient: the spinner is gone once the verb prints
    with errors().status(f"loading {model} ..."):
        from guardrail import Guard

        silence(model)
        guard = Guard.from_pretrained(model, source)
    for warning in guard.active.plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return guard


def silence(model: str) -> None:
    """Errors only from transformers, and a bar only for a model that takes a while, on a terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    if model == DEMO or not sys.stderr.isatty():
        logging.disable_progress_bar()
