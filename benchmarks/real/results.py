"""Result files of this folder: what was found, and on which machine, versions and commit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path

from guardrail.bench.machine import commit, machine, versions

FOLDER = Path(__file__).parents[1] / "results" / "real"
RUNS = Path(__file__).parents[2] / "runs" / "real"
"""Journals, from which an interrupted run goes on; not committed."""


def save(
    name: str, found: Mapping[str, object], notes: Sequence[str] = (), folder: Path | None = None
) -> Path:
    """Write a result file atomically, and say where."""
    path = (folder or FOLDER) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    origin = {
        "machine": asdict(machine("cpu")),
        "versions": versions(),
        "commit": commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "notes": list(notes),
    }
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps({**origin, **found}, indent=1, default=_plain) + "\n", encoding="utf-8")
    beside.replace(path)
    return path


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {key: _rounded(one) for key, one in asdict(value).items()}
    raise TypeError(f"{type(value).__name__} cannot be saved")


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value
