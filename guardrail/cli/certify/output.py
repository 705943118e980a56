"""Prints what `guardrail certify` found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import interval, print_json, print_table

if TYPE_CHECKING:
    from guardrail.certify.comparison import Certified
    from guardrail.certify.recording import Recording
    from guardrail.certify.results import Changes, Comparison, RateCheck


def print_recorded(found: Recording, path: Path, as_json: bool) -> None:
    counts = {"prompts": len(found.said), "benign": int(found.benign.sum())}
    if as_json:
        print_json({"recording": str(path), "configuration": found.configuration, **counts})
    else:
        typer.echo(
            f"{path}: {counts['prompts']} distinct prompts, {counts['benign']} of them benign, under "
            f"{found.configuration}"
        )


def publish(found: Certified, out: Path, html: Path | None, as_json: bool) -> None:
    written = str(out) if found.calibration is not None else None
    if html is not None:
        from guardrail.report.certification import page

        page(found.comparison, written).write(html)
    if as_json:
        print_json(asdict(found.comparison) | {"calibration": written})
    else:
        _print(found.comparison, written)


def _print(found: Comparison, written: str | None) -> None:
    typer.echo(f"reference: {found.reference}\ncandidate: {found.candidate}")
    _print_agreement(found)
    parts = (("all", found.all), ("benign", found.benign), ("others", found.others))
    rows = [(name, *_changes(one)) for name, one in parts if one]
    print_table(("prompts", "n", "changed", "share (95 %)"), rows, title="\nverdicts that change")
    _print_rates("false-positive rates on the benign prompts", found.rates)
    if found.recalibrated and found.recalibrated.rates:
        n = found.recalibrated.tested
        _print_rates(f"with new thresholds, on the {n} benign prompts left out", found.recalibrated.rates)
    _print_verdict(found, written)


def _print_agreement(found: Comparison) -> None:
    columns = ("trait", "layer", "n", "slope", "offset", "rank correlation", "largest difference")
    rows = [
        (a.trait, a.layer, a.n, interval(a.slope), interval(a.offset), interval(a.rank, ".4f"), a.largest)
        for a in found.agreement
    ]
    print_table(columns, rows, title="\nscores: candidate = slope * reference + offset (95 %)")


def _print_rates(title: str, rates: tuple[RateCheck, ...]) -> None:
    rows = [
        (r.name, interval(r.stated, ".2%") or "unknown", f"{r.reference:.2%}", f"{r.candidate:.2%}", _kept(r))
        for r in rates
    ]
    columns = ("policy", "stated (95 %)", "reference (95 %)", "candidate (95 %)", "")
    print_table(columns, rows, title=f"\n{title}")


def _print_verdict(found: Comparison, written: str | None) -> None:
    if found.not_compared:
        typer.echo(f"\nnot compared: {', '.join(found.not_compared)}")
    for note in found.notes:
        typer.echo(f"\nnote: {note}")
    typer.echo(f"\n{found.verdict}")
    for reason in found.reasons:
        typer.echo(f"- {reason}")
    if written:
        how = "with its certificate" if found.verdict == "PASS" else "to use under the candidate"
        typer.echo(f"{written}: calibration written, {how}")


def _changes(one: Changes) -> tuple[int, int, str]:
    return one.n, one.changed, f"{one.share:.2%}"


def _kept(one: RateCheck) -> str:
    return "kept" if one.kept else "EXCEEDED"
