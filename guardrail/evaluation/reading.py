"""Strict reading of labelled data from JSON Lines: every bad line is reported with its number.

A line is `{"prompt": "..."}` or `{"messages": [...]}` with a label: `"trait": "evil"` (it shows this trait),
`"trait": null` (it shows none), or `"labels": {"evil": 1, "humor": 0}`. Optional: `expression`, `condition`,
`style`, `language`, `source`, `hard_benign`, `group`, `split`; `category` and `pair`, which are for
`vectors fit`, are passed over. If lines have a split, only `test` is evaluated, and the text baseline learns
from `train`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from guardrail.errors import ConfigError
from guardrail.evaluation.material import Example
from guardrail.files.json_lines import parse_lines, parsed, raw_lines, refuse
from guardrail.files.json_text import decoded
from guardrail.types import Message
from guardrail.vectors.values import no_vector

Score: TypeAlias = Annotated[float, Field(ge=0.0, le=100.0)]
Label: TypeAlias = Literal[0, 1] | bool
SPLITS = ("train", "validation", "test", None)


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Line(BaseModel):
    """The keys of a line."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    prompt: str | None = None
    messages: list[_Turn] | None = None
    trait: str | None = None
    labels: dict[str, Label] | None = None
    expression: dict[str, Score | list[Score]] = {}
    condition: str = ""
    style: str | None = None
    language: str | None = None
    source: str | None = None
    hard_benign: bool | None = None
    group: str = ""
    category: str = ""
    pair: str = ""
    split: Literal["train", "validation", "test"] | None = None


@dataclass(frozen=True, slots=True)
class LabelledData:
    """Examples to evaluate, and examples from which the text baseline may learn."""

    test: list[Example]
    train: list[Example]
    unused: int
    """The number of prompts in the split `validation`."""


def read_labelled(path: Path, traits: Sequence[str]) -> LabelledData:
    """The examples of a file. `traits` are the traits that have vectors.

    Raises ConfigError with every bad line: unknown traits and repeated prompts (a leak between splits or
    labels) count as bad. Raises it for an empty file too.
    """
    rows = parse_lines(path, Line, lambda line: _check(line, traits))
    refuse(_repeated(rows))
    if not rows:
        raise ConfigError(f"{path}: the file contains no labelled prompt")
    return _chosen(path, rows)


def read_prompts(path: Path) -> dict[str, tuple[str, tuple[Message, ...]]]:
    """The prompts of a JSON Lines file: maps their normalised form to (place, messages).

    Lines are strings, or objects with `prompt` or `messages`; other keys are ignored.
    """
    found: dict[str, tuple[str, tuple[Message, ...]]] = {}
    problems: list[str] = []
    for place, text in raw_lines(path):
        try:
            value = decoded(text)
            row = value if isinstance(value, dict) else {"prompt": value}
            bare = {key: row[key] for key in ("prompt", "messages") if key in row}
            messages = _messages(parsed(json.dumps(bare).encode(), Line))
            found.setdefault(compared(messages), (place, messages))
        except ValueError as error:
            problems.append(f"{place}: {error}")
    refuse(problems)
    return found


def refuse_seen(examples: Sequence[Example], path: Path) -> None:
    """Raises ConfigError for prompts that are in the file: they were used before, so this is a leak."""
    seen = read_prompts(path)
    refuse(
        [
            f"{e.place}: leak: this prompt was used before, at {seen[key][0]}"
            for e in examples
            if (key := compared(e.messages)) in seen
        ]
    )


def compared(messages: Sequence[Message]) -> str:
    """The normalised form of a prompt for comparison: case and white space do not count."""
    return json.dumps([[m.role, " ".join(m.content.casefold().split())] for m in messages])


def _check(line: Line, traits: Sequence[str]) -> None:
    if "trait" in line.model_fields_set and line.labels is not None:
        raise ValueError("give `trait` or `labels`, not both")
    if not {"trait", "labels", "expression"} & line.model_fields_set:
        raise ValueError("no label: give `trait`, `labels` or `expression`")
    for name in (*([line.trait] if line.trait else ()), *(line.labels or ()), *line.expression):
        if name not in traits:
            raise ValueError(no_vector(name, traits))
    _messages(line)


def _messages(line: Line) -> tuple[Message, ...]:
    if (line.prompt is None) == (line.messages is None):
        raise ValueError("give `prompt` or `messages`")
    turns = [Message("user", line.prompt)] if line.prompt is not None else []
    turns += [Message(turn.role, turn.content) for turn in line.messages or ()]
    if not turns or not turns[-1].content.strip():
        raise ValueError("the prompt is empty")
    return tuple(turns)


def _repeated(rows: Sequence[tuple[str, Line]]) -> list[str]:
    first: dict[str, tuple[str, Line]] = {}
    problems: list[str] = []
    for place, line in rows:
        key = compared(_messages(line))
        if key not in first:
            first[key] = (place, line)
            continue
        earlier, other = first[key]
        what = (
            f"leak between the splits {other.split} and {line.split}"
            if other.split != line.split
            else "labelled differently"
            if (other.trait, other.labels) != (line.trait, line.labels)
            else "the same prompt twice"
        )
        problems.append(f"{place}: {what}: the prompt repeats {earlier}")
    return problems


def _chosen(path: Path, rows: Sequence[tuple[str, Line]]) -> LabelledData:
    split = any(line.split for _, line in rows)
    if split and (bare := [place for place, line in rows if line.split is None]):
        raise ConfigError(f"{bare[0]}: `split` is missing, but other lines have one")
    named = {line.trait for _, line in rows if line.trait} | {
        t for _, line in rows for t in line.labels or ()
    }
    examples = {
        name: [_example(*row, sorted(named)) for row in rows if row[1].split == name] for name in SPLITS
    }
    test = examples["test"] if split else examples[None]
    if not test:
        raise ConfigError(f"{path}: no line has the split `test`, so there is nothing to evaluate")
    return LabelledData(test, examples["train"], len(examples["validation"]))


def _example(place: str, line: Line, named: Sequence[str]) -> Example:
    messages = _messages(line)
    slices = {name: value for name in ("style", "language", "source") if (value := getattr(line, name))}
    if line.hard_benign is not None:
        slices["hard_benign"] = "yes" if line.hard_benign else "no"
    system = next((m.content for m in messages if m.role == "system"), "")
    return Example(
        messages=messages,
        labels=_labels(line, named),
        expression={
            k: tuple(v) if isinstance(v, list) else (v,) for k, v in line.expression.items() if v != []
        },
        condition=line.condition,
        slices=slices,
        group=line.group or system or place,
        place=place,
    )


def _labels(line: Line, named: Sequence[str]) -> dict[str, bool]:
    if line.labels is not None:
        return {trait: bool(label) for trait, label in line.labels.items()}
    if "trait" not in line.model_fields_set:
        return {}
    return {line.trait: True} if line.trait else dict.fromkeys(named, False)
