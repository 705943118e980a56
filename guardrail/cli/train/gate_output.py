"""What `guardrail train gate` prints and writes for people and for programs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import note, print_json, print_table

if TYPE_CHECKING:
    from guardrail.train.gate import GateResult, PersonaFile, Sealed


def publish(
    found: GateResult,
    policy: PersonaFile,
    sealed: Sealed,
    html: Path | None,
    said: Collection[str],
    *,
    as_json: bool,
) -> None:
    """Write the page, then print. `said`: notes that were printed before the models were measured."""
    if html is not None:
        from guardrail.report.gate import page

        page(found, policy, sealed).write(html)
    if as_json:
        _print_json(found, sealed)
        return
    _print(found, sealed, said)
    if html is not None:
        typer.echo(f"{html}: written")


def _print_json(found: GateResult, sealed: Sealed) -> None:
    from guardrail.train.gate.wording import conclusion

    print_json(
        {
            "passed": found.passed,
            "conclusion": conclusion(found.verdicts),
            "verdicts": [asdict(one) for one in found.verdicts],
            "shifts": {name: one.as_json() for name, one in found.shifts.items()},
            "notes": found.notes,
            "evidence": str(sealed.evidence),
            "head": sealed.head,
        }
    )


def _print(found: GateResult, sealed: Sealed, said: Collection[str]) -> None:
    from guardrail.train.gate.wording import conclusion, exceeded, shown

    rows = [(one.outcome, one.what, one.condition, one.limit, shown(one.found)) for one in found.verdicts]
    print_table(("verdict", "what", "under", "limit", "change"), rows)
    for one in found.verdicts:
        if one.why:
            note(f"{one.outcome}: {one.what} ({one.condition}): {one.why}")
    for text in [text for text in found.notes if text not in said]:
        note(f"note: {text}")
    typer.echo(f"\n{conclusion(found.verdicts)}")
    for line in exceeded(found.verdicts):
        typer.echo(f"- {line}")
    typer.echo(f"{sealed.evidence}: written, head {sealed.head}")
