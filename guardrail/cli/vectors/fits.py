"""How a probe was fitted on labelled prompts, for people: printed by `vectors fit` and `vectors show`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import print_table

if TYPE_CHECKING:
    from guardrail.vectors.provenance import FitCandidate, FitSource, LabelledFit

SOURCES = ("source", "label", "prompts", "above the threshold", "95 % interval")
SHOWN = 8
"""Candidates; `--json` shows all."""


def print_fit(trait: str, fit: LabelledFit) -> None:
    """What was chosen, why, and how it did on held-out sources."""
    chosen = fit.candidates[0]
    typer.echo(f"\n{trait}: {_places(chosen)}; {_way(chosen)}\n  {fit.reason}")
    for check in fit.checks:
        typer.echo(
            f"\n{trait}: {check.name}, held out of the fit: AUROC {check.auroc:.3f}, recall "
            f"{check.recall:.3f} at the threshold that no harmless source exceeds at more than 1 %"
        )
        print_table(SOURCES, [_source(one) for one in check.sources])
    if single := _of_one_class(fit):
        typer.echo(f"\nsources whose prompts all have one label, which is usual: {', '.join(single)}")
    columns = ("", "reads", "way to fit", "criterion", "AUROC", "")
    rows = [_candidate(one, one is chosen) for one in fit.candidates[:SHOWN]]
    print_table(columns, rows, title=f"\n{trait}: the best of {len(fit.candidates)} candidates")
    for warning in fit.warnings:
        typer.echo(f"warning: {trait}: {warning}")
    for check in fit.checks:
        share = f"{check.recall.value:.0%} of the prompts that show it"
        typer.echo(f"{trait}: finds about {share} (checked on {check.name})")


def _of_one_class(fit: LabelledFit) -> list[str]:
    """Sources whose prompts all have the same label. That is usual, and no hindrance."""
    sides: dict[str, set[bool]] = {}
    for one in fit.checks[0].sources:
        sides.setdefault(one.source, set()).add(one.label)
    return [source for source, labels in sides.items() if source and len(labels) == 1]


def _source(one: FitSource) -> Sequence[object]:
    interval = f"[{one.fired.low:.1%}, {one.fired.high:.1%}]"
    return (one.source or "(none named)", int(one.label), one.prompts, f"{one.fired.value:.1%}", interval)


def _candidate(one: FitCandidate, chosen: bool) -> Sequence[object]:
    error = "" if one.error is None else f"standard error {one.error:.3f}"
    mark = "chosen" if chosen else ""
    return (mark, _places(one), _way(one), f"{one.value:.3f}", f"{one.auroc:.4f}", error)


def _places(one: FitCandidate) -> str:
    return " + ".join(f"{position} at layer {layer}" for layer, position in one.places)


def _way(one: FitCandidate) -> str:
    penalty = "" if one.penalty is None else f" {one.penalty:g}"
    return f"{one.method}{penalty}{', unit norm' if one.normalised else ''}"
