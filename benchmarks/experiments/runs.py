"""Runs of an experiment, in a journal of JSON Lines: every run is made once, whatever happens in between.

The first line holds the recipe; a journal that was begun under another one is refused. A line that a kill has
torn is dropped, and its run is made again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from guardrail.extract.journal import check_recipe

Found = Mapping[str, Any]
ROOT = Path(os.environ.get("EXPERIMENTS_RUNS", Path(__file__).parents[2] / "runs" / "experiments"))
"""Where journals, data and finetuned models lie; not committed."""


class Runs:
    """The runs in one file, by name. Raises ExtractionError if it was begun under another recipe."""

    def __init__(self, path: Path, recipe: Found) -> None:
        self.path = path
        self._known: dict[str, Found] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or not path.read_bytes().endswith(b"\n"):
            self._mend()
        for line in self._lines():
            if "recipe" in line:
                check_recipe(path, line["recipe"], recipe)
            else:
                self._known[line["run"]] = line["found"]
        if not path.stat().st_size:
            self._append({"recipe": recipe})

    def _mend(self) -> None:
        whole = self.path.read_bytes().rpartition(b"\n")[:2] if self.path.is_file() else (b"",)
        self.path.write_bytes(b"".join(whole))

    def _lines(self) -> Iterator[dict[str, Any]]:
        return map(json.loads, self.path.read_text(encoding="utf-8").splitlines())

    def __contains__(self, run: str) -> bool:
        return run in self._known

    def __getitem__(self, run: str) -> Found:
        return self._known[run]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def once(self, run: str, made: Callable[[], Found]) -> Found:
        """What a run found; `made` is called only if no earlier process has finished it."""
        if run not in self._known:
            began, used = time.monotonic(), time.process_time()
            found = {
                **made(),
                "seconds": _since(began, time.monotonic),
                "cpu": _since(used, time.process_time),
            }
            self._append({"run": run, "found": found})
            self._known[run] = found
            print(f"{datetime.now(UTC):%H:%M:%S} {self.path.stem}: {run} ({found['cpu']} s cpu)", flush=True)
        return self._known[run]

    def _append(self, line: Found) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _since(began: float, clock: Callable[[], float]) -> float:
    return round(clock() - began, 1)
