"""Strict reading of labelled prompts: JSON Lines, or CSV by its name. Every bad row is reported at once.

A line is `{"messages": [...]}`, `{"prompt": "..."}` or `{"text": "..."}` with `"labels": {"harm": 1}`. A
label is 1, 0, true or false; null, or no entry, means that nobody has judged the prompt for that trait.
Optional: `source`, `category` (the kind of prompt within its source), `group` or `pair` (never on both
sides of a split), `split` (train, validation or test), `tools`. What else a file for `guardrail evaluate`
may say is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from guardrail.errors import ConfigError, PromptError
from guardrail.extract.fit.csv_file import Columns, csv_rows, values_of
from guardrail.extract.fit.rows import LabelledPrompt, Split
from guardrail.files.json_lines import parsed, raw_lines
from guardrail.files.json_text import validated
from guardrail.pipeline.request import request

Label: TypeAlias = Literal[0, 1] | bool


class Line(BaseModel):
    """The keys of a line."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str | None = None
    text: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    labels: dict[str, Label | None] | None = None
    source: str = ""
    category: str = ""
    group: str = ""
    pair: str = ""
    split: Literal["train", "validation", "test"] | None = None
    style: Any = None
    language: Any = None
    condition: Any = None
    expression: Any = None
    hard_benign: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """The prompts of one or more files. `unused` counts those of the split `test`."""

    rows: tuple[LabelledPrompt, ...]
    problems: tuple[str, ...] = ()
    unused: int = 0


def read_labelled(files: Sequence[Path], columns: Columns, validation: Path | None = None) -> Labelled:
    """All prompts of all files; bad rows are in `problems`. `validation` is a file for that part alone.

    With several files, prompts without a source have the name of their file for one. Raises ConfigError for
    a file that cannot be read at all, holds no prompt, or says `split` for some prompts only.
    """
    parts = [_read(path, columns, path.stem if len(files) > 1 else "") for path in files]
    if validation is not None:
        parts = [_as_part(part, "train") for part in parts]
        parts.append(_as_part(_read(validation, columns, validation.stem), "validation"))
    found = Labelled(
        rows=tuple(row for part in parts for row in part.rows),
        problems=tuple(problem for part in parts for problem in part.problems),
        unused=sum(part.unused for part in parts),
    )
    if bare := [row.place for row in found.rows if row.split is None]:
        if len(bare) < len(found.rows):
            raise ConfigError(f"{bare[0]}: `split` is missing, but other rows have one")
    elif found.rows:
        _check_parts(found)
    return found


def _check_parts(found: Labelled) -> None:
    parts = {row.split for row in found.rows}
    if missing := [part for part in ("train", "validation") if part not in parts]:
        raise ConfigError(
            f"no prompt has the split `{missing[0]}`; both parts are needed, or no split at all"
        )


def _as_part(found: Labelled, part: Split) -> Labelled:
    if given := [row.place for row in found.rows if row.split is not None]:
        raise ConfigError(f"{given[0]}: give `split` in the rows, or --validation FILE, not both")
    return replace(found, rows=tuple(replace(row, split=part) for row in found.rows))


def _read(path: Path, columns: Columns, source: str) -> Labelled:
    """One file. `source` is for rows that name none."""
    rows: list[LabelledPrompt] = []
    problems: list[str] = []
    unused = 0
    for place, raw in csv_rows(path, columns) if path.suffix.lower() == ".csv" else raw_lines(path):
        try:
            line = parsed(raw, Line) if isinstance(raw, bytes) else validated(Line, values_of(raw, columns))
            unused += line.split == "test"
            rows += [_row(place, line, source)] if line.split != "test" else []
        except (ValueError, PromptError) as error:
            problems.append(f"{place}: {error}")
    if not rows and not problems:
        raise ConfigError(f"{path}: the file contains no labelled prompt")
    return Labelled(rows=tuple(rows), problems=tuple(problems), unused=unused)


def _row(place: str, line: Line, source: str) -> LabelledPrompt:
    given = [c for c in (line.messages, line.prompt, line.text) if c is not None]
    if len(given) != 1:
        raise ValueError("give one of `messages`, `prompt` and `text`")
    labels = {name: bool(label) for name, label in (line.labels or {}).items() if label is not None}
    if not labels:
        raise ValueError('no label: give `labels`, such as {"harm": 1}')
    made = request("check", given[0], tools=line.tools)
    if made.unreadable:
        raise ValueError(made.unreadable)
    return LabelledPrompt(
        place=place,
        messages=made.messages,
        tools=made.tools,
        labels=labels,
        source=line.source or source,
        category=line.category,
        group=line.group or line.pair,
        split=line.split if line.split != "test" else None,
    )
