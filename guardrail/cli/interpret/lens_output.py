"""What `guardrail interpret lens` prints for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import print_table

if TYPE_CHECKING:
    from guardrail.interpret.lens import LensResult
    from guardrail.statistics.intervals import Estimate

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
    shares = [_percent(one.accuracy[c]) for c in ("with", "without", "other")]
    return one.task, one.model, one.lens, *shares, _percent(one.changed)


def _scores(one: LensResult) -> list[tuple[str, ...]]:
    return [
        (
            *(one.task, one.model, one.lens, f"last {100 * share:.0f} %"),
            _estimate(one.score("with", "dataset", share).mean),
            _estimate(one.score("without", "own", share).mean),
            _estimate(one.score("without", "dataset", share).mean),
            f"{one.score('with', 'dataset', share).bound:.2f}",
        )
        for share in SHOWN
    ]


def _percent(value: Estimate) -> str:
    return f"{100 * value.value:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def _estimate(value: Estimate) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
