"""What `guardrail interpret lens` prints for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import interval, percent, print_table

if TYPE_CHECKING:
    from guardrail.interpret.lens.results import LensResult

HEAD = ("task", "model", "lens", "answered (%)", "without persona", "of another item", "changed (%)")
SCORES = ("task", "model", "lens", "layers", "S with, dataset", "without, own", "without, dataset", "bound")
SHOWN = (0.2, 0.4, 1.0)
"""The shares of layers that are printed; the report and JSON have all."""


def print_lens(found: Sequence[LensResult]) -> None:
    """Print what was answered, then S."""
    from guardrail.interpret.lens.notes import notes

    print_table(HEAD, [_answered(one) for one in found])
    rows = [row for one in found for row in _scores(one)]
    print_table(SCORES, rows, "\nconsistency score S; 95 % intervals")
    for line in dict.fromkeys(note for one in found for note in notes(one)):
        typer.echo(line)


def _answered(one: LensResult) -> tuple[str, ...]:
    shares = [percent(one.accuracy[c]) for c in ("with", "without", "other")]
    return one.task, one.model, one.lens, *shares, percent(one.changed)


def _scores(one: LensResult) -> list[tuple[str, ...]]:
    return [
        (
            *(one.task, one.model, one.lens, f"last {100 * share:.0f} %"),
            interval(one.score("with", "dataset", share).mean),
            interval(one.score("without", "own", share).mean),
            interval(one.score("without", "dataset", share).mean),
            f"{one.score('with', 'dataset', share).bound:.2f}",
        )
        for share in SHOWN
    ]
