"""What `lone_words` found: claim 4 of `patching_found`, and claims 1 and 2 on all pairs that passed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.interpret.crossed import crossed, mean
from benchmarks.interpret.pool import TOPIC, parts
from guardrail.interpret.patching.results import DIRECTIONS
from guardrail.statistics.intervals import Estimate
from guardrail.types import Array

PERSONA, ALONE, WINDOW = "MLP 1", "MLP 1, word alone", "MLPs 1 to 4"
Numbered = dict[str, Estimate]


def words(folder: Path) -> dict[str, dict[str, object]]:
    """By direction, out of the files that `lone_words` wrote; empty without any."""
    kept = [json.loads(path.read_text()) for path in sorted(folder.glob("words*.json"))]
    names: list[str] = [name for one in kept for name in one["names"]]
    people = [i for i, name in enumerate(names) if not _topic(name)]
    topics = [i for i, name in enumerate(names) if _topic(name)]
    return {
        way: _worded(names, _joined([one["effects"][way] for one in kept]), people, topics)
        for way in (DIRECTIONS if kept else ())
    }


def _joined(chunks: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Array]:
    return {name: np.concatenate([one[name] for one in chunks]) for name in chunks[0]}


def _worded(
    names: Sequence[str], columns: Mapping[str, Array], people: Sequence[int], topics: Sequence[int]
) -> dict[str, object]:
    first, every, last = (columns[name] for name in (WINDOW, f"{WINDOW} at all tokens", "last four MLPs"))
    here = [names[i] for i in people]
    made: dict[str, object] = {
        "pairs": {"personas": len(people), "topics": len(topics)},
        "personas": _means(names, columns, people),
        "share at identity": crossed(here, [first[people], every[people]], lambda m: m[..., 0] / m[..., 1]),
        "first less last window": mean(here, (first - last)[people]),
        "own prompt less word alone": mean(here, (columns[PERSONA] - columns[ALONE])[people]),
    }
    if topics:
        made["topics"] = _means(names, columns, topics)
        made["personas less topics"] = _apart(names, columns[PERSONA], people, topics)
    return made


def _topic(name: str) -> bool:
    return parts(name)[0] == TOPIC


def _means(names: Sequence[str], columns: Mapping[str, Array], places: Sequence[int]) -> Numbered:
    here = [names[i] for i in places]
    return {name: mean(here, column[list(places)]) for name, column in columns.items()}


def _apart(names: Sequence[str], column: Array, people: Sequence[int], topics: Sequence[int]) -> Estimate:
    """The mean of personas less that of topics."""
    places = [*people, *topics]
    person = np.array([1.0] * len(people) + [0.0] * len(topics))
    columns = [column[places] * person, person, column[places] * (1 - person), 1 - person]
    return crossed(
        [names[i] for i in places], columns, lambda m: m[..., 0] / m[..., 1] - m[..., 2] / m[..., 3]
    )
