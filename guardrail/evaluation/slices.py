"""Slices of the data to report separately: declared ones, and thirds by prompt length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardrail.evaluation.material import Example

LENGTH = "length"


def sliced(examples: Sequence[Example]) -> dict[str, dict[str, list[int]]]:
    """Maps slice name and value to the positions of its examples; values are in alphabetical order."""
    found: dict[str, dict[str, list[int]]] = {}
    for i, example in enumerate(examples):
        for name, value in example.slices.items():
            found.setdefault(name, {}).setdefault(value, []).append(i)
    return {name: dict(sorted(values.items())) for name, values in found.items()}


def by_length(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Thirds of the length in characters, from short to long; empty if most are equally long."""
    sizes = np.array([len(example.text) for example in examples])
    first, second = (int(edge) for edge in np.percentile(sizes, (100 / 3, 200 / 3)))
    if first == second:
        return {}
    names = (f"up to {first} characters", f"{first + 1} to {second} characters", f"over {second} characters")
    thirds = (sizes > first).astype(int) + (sizes > second)
    found = {name: np.flatnonzero(thirds == third).tolist() for third, name in enumerate(names)}
    return {name: rows for name, rows in found.items() if rows}
