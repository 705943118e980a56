"""Reads sweep files: our own, and `direction_evaluations.json` from the refusal_direction repository.

The published file is a list of `{position, layer, refusal_score, steering_score, kl_div_score}`. Its
`layer` n is the input of block n counted from 0 (resid_pre), which is our layer n, the output of block n
counted from 1. n = 0 is the embedding output, which is not a layer here, and is left out. Scores are mean
log-odds of a refusal: `refusal_score` on harmful prompts with the direction ablated, `steering_score` on
harmless ones with it added. Source: Arditi et al. 2024, arXiv 2406.11717, and its select_direction.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guardrail.errors import ConfigError
from guardrail.extract.layers.measurements import Candidate, Sweep
from guardrail.files import json_text

PUBLISHED, REFUSAL = "refusal_direction", "refusal"
_KEYS = ("position", "layer", "refusal_score", "steering_score", "kl_div_score")


def load_sweep(path: Path, trait: str | None = None) -> Sweep:
    """A sweep of this trait, from our file or a published one, which does not name its trait.

    None takes the trait of our file; published ones are about refusal.

    Raises ConfigError for other files, and for a sweep of another trait.
    """
    try:
        data = json_text.read(path)
        sweep = published(data, trait or REFUSAL) if isinstance(data, list) else _ours(data)
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if trait is not None and sweep.trait != trait:
        raise ConfigError(f"{path}: this is a sweep of {sweep.trait!r}, not of {trait!r}")
    return sweep


def published(rows: Sequence[object], trait: str) -> Sweep:
    """Convert a published list to a sweep. The number of distinct `layer` values gives the number of layers.

    The steering score becomes `induce` and, as a percentage, `trait`; coherence was not measured. NaN means
    a missing score.
    """
    numbers = [_row(row) for row in rows]
    if not numbers:
        raise ConfigError("the list is empty")
    layers = 1 + max(int(row["layer"]) for row in numbers)
    candidates = tuple(_candidate(row) for row in numbers if row["layer"] >= 1)
    return Sweep(trait=trait, layers=layers, candidates=candidates, origin=PUBLISHED)


def _ours(data: object) -> Sweep:
    if not isinstance(data, dict):
        raise ConfigError("neither a layer sweep nor a list of evaluated directions")
    return Sweep.from_json(data)


def _row(row: object) -> Mapping[str, float]:
    if not isinstance(row, dict) or not all(isinstance(row.get(key), int | float) for key in _KEYS):
        raise ConfigError(f"every entry needs the numbers {', '.join(_KEYS)}")
    if not all(isinstance(row[key], int) for key in ("position", "layer")) or row["layer"] < 0:
        raise ConfigError(f"invalid place: position {row['position']}, layer {row['layer']}")
    return {key: row[key] for key in _KEYS}


def _candidate(row: Mapping[str, Any]) -> Candidate:
    induce = _finite(row["steering_score"])
    return Candidate(
        layer=row["layer"],
        position=row["position"],
        trait=None if induce is None else 50 * (1 + math.tanh(induce / 2)),  # the logistic function
        induce=induce,
        ablation=_finite(row["refusal_score"]),
        kl=_finite(row["kl_div_score"]),
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
