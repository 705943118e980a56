"""A text classifier as a scorer: it reads the conversation, not the model.

A policy names it as a trait (`trait: text-malice`), with a number as its threshold: the logit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import Scorer
from guardrail_text_scorer.classifier import TextClassifier
from guardrail_text_scorer.scorer import TextScorer

if TYPE_CHECKING:
    import typer

__all__ = ["SHIPPED", "TextClassifier", "TextScorer"]

SHIPPED = Path(__file__).with_name("text-malice.safetensors")
MODELS = "GUARDRAIL_TEXT_SCORER"
"""The variable that names other models, separated like PATH; without it the shipped one is used."""


@hookimpl
def guardrail_scorers() -> Sequence[Scorer]:
    """One scorer for each model; its name is in the model's file."""
    named = [Path(part) for part in os.environ.get(MODELS, "").split(os.pathsep) if part]
    return [TextScorer(TextClassifier.load(path)) for path in named or [SHIPPED]]


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """`guardrail text-scorer train | score`."""
    from guardrail_text_scorer.cli import register

    register(app)
