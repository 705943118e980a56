"""`python -m benchmarks.experiments.report`: results, figures and the tables of the page, from the journals.

Writes `benchmarks/results/experiments/` and the parts of README.md between its markers. An experiment whose
journals are not on this machine keeps its saved result. `--page` writes only the page, from saved results.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.experiments import figures, tables
from benchmarks.experiments.runs import ROOT
from benchmarks.real import results

FOLDER = results.FOLDER.parent / "experiments"
README = Path(__file__).parent / "README.md"
JOURNALS = {
    "finetunes": "demo/screens.jsonl",
    "samples": "demo/samples.jsonl",
    "prevention": "demo/prevention.jsonl",
    "prevention-cost": "demo/prevention-cost.jsonl",
    "smollm2": "smollm2/runs.jsonl",
}
FIGURES: Mapping[str, Callable[[Any, Path], None]] = {
    "finetunes": figures.finetunes,
    "prevention": figures.prevention,
}
MISSING = "Not measured yet."


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", action="store_true", help="only figures and the page")
    if not parser.parse_args().page:
        for name, journal in JOURNALS.items():
            if (ROOT / journal).is_file():
                results.save(name, _found(name), folder=FOLDER)
    for name, draw in FIGURES.items():
        if saved := _saved(name):
            draw(saved, FOLDER / f"{name}.svg")
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def filled(text: str) -> str:
    """The page with the current tables between its markers."""
    for name, section in tables.SECTIONS.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
        before, rest = text.split(begin, 1)
        saved = _saved(name)
        parts = [tables.origin(saved), *section(saved)] if saved else [MISSING]
        text = before + begin + "\n" + "\n\n".join(parts) + "\n\n" + end + rest.split(end, 1)[1]
    return text


def _found(name: str) -> Mapping[str, object]:
    # not at the top: the page needs neither models nor torch
    from benchmarks.experiments import (
        finetunes_found,
        prevention_cost_found,
        prevention_found,
        samples_found,
        smollm2_found,
    )

    made = {
        "finetunes": finetunes_found,
        "samples": samples_found,
        "prevention": prevention_found,
        "prevention-cost": prevention_cost_found,
        "smollm2": smollm2_found,
    }
    return made[name].found()


def _saved(name: str) -> Mapping[str, Any] | None:
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
