"""Prints what `guardrail certify` found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import print_json, print_table

if TYPE_CHECKING:
    from guardrail.certify.comparison import Certified
    from guardrail.certify.recording import Recording
    from guardrail.certify.results import Changes, Comparison, RateCheck
    from guardrail.policy.rates import Rate
    from guardrail.statistics.intervals import Estimate


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
    columns = ("trait", "layer", "n", "slope", "offset", "rank correlation", "largest difference")
    rows = [
        (a.trait, a.layer, a.n, _number(a.slope), _number(a.offset), _number(a.rank, 4), a.largest)
        for a in found.agreement
    ]
    print_table(columns, rows, title="\nscores: candidate = slope * reference + offset (95 %)")
    parts = (("all", found.all), ("benign", found.benign), ("others", found.others))
    rows = [(name, *_changes(one)) for name, one in parts if one]
    print_table(("prompts", "n", "changed", "share (95 %)"), rows, title="\nverdicts that change")
    _print_rates("false-positive rates on the benign prompts", found.rates)
    if found.recalibrated and found.recalibrated.rates:
        n = found.recalibrated.tested
        _print_rates(f"with new thresholds, on the {n} benign prompts left out", found.recalibrated.rates)
    _print_verdict(found, written)


def _print_rates(title: str, rates: tuple[RateCheck, ...]) -> None:
    rows = [(r.name, _stated(r.stated), _share(r.reference), _share(r.candidate), _kept(r)) for r in rates]
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


def _number(value: Estimate, digits: int = 3) -> str:
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _share(value: Estimate) -> str:
    return f"{value.value:.2%} [{value.low:.2%}, {value.high:.2%}]"


def _stated(value: Rate | None) -> str:
    return "unknown" if value is None else f"{value.value:.2%} [{value.low:.2%}, {value.high:.2%}]"


def _changes(one: Changes) -> tuple[int, int, str]:
    return one.n, one.changed, _share(one.share)


def _kept(one: RateCheck) -> str:
    return "kept" if one.kept else "EXCEEDED"
