"""Few cases in place of every combination: any two values of different axes meet in one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import pytest

EXECUTORS = ("nnsight, then hooks", "nnsight", "hooks")
"""All values of the fixture `executors`."""


def in_pairs(**axes: Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrise a test with one argument for each axis. The keys of a mapping are ids of its values."""
    named = [
        list(axis.items()) if isinstance(axis, Mapping) else [(str(v), v) for v in axis]
        for axis in axes.values()
    ]
    cases = [
        pytest.param(*(value for _, value in row), id="-".join(name for name, _ in row))
        for row in _covering(named)
    ]
    return pytest.mark.parametrize(list(axes), cases, indirect=[name for name in axes if name == "executors"])


def _covering(axes: Sequence[Sequence[tuple[str, Any]]]) -> list[tuple[tuple[str, Any], ...]]:
    """Rows of the product: always the first of those that bring most new pairs together."""
    rows = list(product(*(range(len(axis)) for axis in axes)))
    missing, chosen = set().union(*map(_pairs, rows)), []
    while missing:
        best = max(rows, key=lambda row: len(_pairs(row) & missing))
        chosen.append(tuple(axis[i] for axis, i in zip(axes, best, strict=True)))
        missing -= _pairs(best)
    return chosen


def _pairs(row: Sequence[int]) -> set[tuple[tuple[int, int], ...]]:
    return set(combinations(enumerate(row), 2))
