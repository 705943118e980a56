"""Keeps the tables of benchmarks/README.md equal to the committed results."""

from __future__ import annotations

from pathlib import Path

from guardrail.bench.results import Report, read
from guardrail.bench.tables import markdown

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"


def refresh() -> None:
    """Write the tables again."""
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")


def filled(text: str) -> str:
    """The text with the current tables between its markers."""
    for name in ("cpu", "gpu"):
        begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
        before, rest = text.split(begin, 1)
        text = before + begin + section(name) + end + rest.split(end, 1)[1]
    return text


def section(name: str) -> str:
    """The origin of the numbers, and their table."""
    report = read(FOLDER / "results" / f"{name}.json")
    return f"\n{provenance(report)}\n\n{markdown(report.cases)}\n\n"


def provenance(report: Report) -> str:
    """One line about machine, versions and commit."""
    machine = report.machine
    if machine is None:
        return "Not measured on any machine yet."
    used = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return (
        f"{machine.processor}, {machine.cores} cores, {machine.threads} thread(s), device {machine.device}; "
        f"{report.clock} clock; {used}; commit {report.commit}; {report.time}; load {machine.load:.1f}."
    )


if __name__ == "__main__":
    refresh()
