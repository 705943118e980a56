"""`guardrail text-scorer train | score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Train and try text classifiers.", no_args_is_help=True)
    group.command("train")(train)
    group.command("score")(score)
    app.add_typer(group, name="text-scorer")


def train(
    data: Annotated[Path, typer.Argument(help="JSON Lines with `text` or `messages`, and `label`.")],
    out: Annotated[Path, typer.Argument(help="Where the classifier goes (.safetensors).")],
    name: Annotated[str, typer.Option(help="What policies call it.")] = "text",
) -> None:
    """Fit a classifier to labelled conversations."""
    from guardrail_text_scorer import training

    examples = training.read_examples(data)
    training.train(name, examples).save(out)
    typer.echo(f"{out}: `{name}`, from {len(examples)} examples")


def score(
    texts: Annotated[list[str], typer.Argument(help="Texts, each a conversation of one turn.")],
    model: Annotated[Path | None, typer.Option(help="A classifier; else the shipped one.")] = None,
) -> None:
    """Print the logit of each text."""
    from guardrail_text_scorer import SHIPPED, TextClassifier

    classifier = TextClassifier.load(model or SHIPPED)
    for text in texts:
        typer.echo(f"{classifier.logit([text]):8.3f}  {text}")
