"""Compares new ratios with the committed ones. Times are not compared, because machines differ.

    python -m benchmarks.baseline compare RESULTS.json     # exit 1 if a ratio has regressed
    python -m benchmarks.baseline write RESULTS.json       # make these the baseline

A ratio has regressed if the low end of its interval exceeds the high end of the baseline's by more than
`MARGIN`, which the place of a model in memory alone can cause.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from guardrail.bench.ratios import Interval
from guardrail.bench.results import Report, Row, read

FILE = Path(__file__).with_name("baseline.json")
MARGIN = 0.01
RULE = f"regressed where the new interval's low end is above the old one's high end + {MARGIN}"
Change = Literal["regressed", "no worse", "not in the baseline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Ratios by row name, and the run that they come from."""

    ratios: Mapping[str, Interval]
    commit: str = ""
    time: str = ""
    clock: str = ""
    machine: str = ""
    rule: str = field(default=RULE)

    def change(self, name: str, found: Interval) -> Change:
        """How a new ratio compares with the baseline."""
        known = self.ratios.get(name)
        if known is None:
            return "not in the baseline"
        return "regressed" if found.low > known.high + MARGIN else "no worse"

    def regressions(self, rows: Iterable[Row]) -> list[str]:
        """One line for each row that has regressed."""
        return [
            f"{row.name}: {_shown(row.ratio)}, baseline {_shown(self.ratios[row.name])}"
            for row in rows
            if row.ratio is not None and self.change(row.name, row.ratio) == "regressed"
        ]


def _shown(found: Interval) -> str:
    return f"{found.median:.3f} ({found.low:.3f} to {found.high:.3f})"


def baseline_of(report: Report) -> Baseline:
    """The ratios of a run."""
    machine = report.machine
    return Baseline(
        ratios={row.name: row.ratio for row in report.cases if row.ratio is not None},
        commit=report.commit,
        time=report.time,
        clock=report.clock,
        machine=f"{machine.processor}, {machine.threads} thread(s)" if machine else "",
    )


def load(path: Path = FILE) -> Baseline:
    """The committed baseline."""
    from pydantic import TypeAdapter

    return TypeAdapter(Baseline).validate_python(json.loads(path.read_text(encoding="utf-8")))


def save(baseline: Baseline, path: Path = FILE) -> None:
    """Make it the committed one."""
    path.write_text(json.dumps(asdict(baseline), indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 1 if a ratio has regressed."""
    asked = parser().parse_args(arguments)
    report = read(asked.results)
    if asked.verb == "write":
        save(baseline_of(report), asked.baseline)
        return 0
    worse = load(asked.baseline).regressions(report.cases)
    print(*(worse or ["no ratio has regressed"]), sep="\n")
    return int(bool(worse))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.baseline", description=__doc__)
    made.add_argument("verb", choices=["compare", "write"])
    made.add_argument("results", type=Path)
    made.add_argument("--baseline", type=Path, default=FILE)
    return made


if __name__ == "__main__":
    raise SystemExit(main())
