"""Reads people's labels of replies, as JSON Lines or CSV: question, answer, trait, and label or score."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from guardrail.errors import ConfigError
from guardrail.extract.judges.agreement import Agreement, agreement
from guardrail.extract.judges.asking import COHERENCE_RUBRIC
from guardrail.extract.judges.opinions import mean_mass, opinions
from guardrail.files.json_lines import raw_lines
from guardrail.files.json_text import content, decoded
from guardrail.files.problems import validation_problems
from guardrail.plugins.protocols import COHERENCE, Judge, JudgeRequest


class Label(BaseModel):
    """One labelled reply: `label` true or false, or `score` 0 to 100."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    question: str
    answer: str
    trait: str
    label: StrictBool | None = None
    score: Annotated[float | None, Field(ge=0, le=100, allow_inf_nan=False)] = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Label:
        if (self.label is None) == (self.score is None):
            raise ValueError("needs either `label` (true or false) or `score` (0 to 100)")
        return self

    @property
    def value(self) -> float:
        """The label as a score."""
        return self.score if self.score is not None else 100.0 * bool(self.label)


@dataclass(frozen=True, slots=True)
class Compared:
    """A judge's agreement with people, per trait in file order."""

    judge: str
    traits: tuple[Agreement, ...]
    numeric_mass: float | None = None
    """Mean probability of all numbers among the judge's answers; None if it gives no probabilities."""


def read_labels(path: Path) -> list[Label]:
    """Read a file. Raises ConfigError with the line, also for a trait with both labels and scores."""
    read = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    labels = [_label(data, place) for place, data in read(path)]
    if not labels:
        raise ConfigError(f"{path}: the file contains no labels")
    for trait in {label.trait for label in labels}:
        if len({label.score is None for label in labels if label.trait == trait}) > 1:
            raise ConfigError(f"{path}: `{trait}` has both labels and scores; use only one kind per trait")
    return labels


def compare(judge: Judge, labels: Sequence[Label], rubrics: Mapping[str, str]) -> Compared:
    """Have every reply judged and compare; `rubrics` by trait. Raises JudgeError."""
    known = {COHERENCE: COHERENCE_RUBRIC, **rubrics}
    found = opinions(judge, [_request(label, known[label.trait]) for label in labels])
    scores = [one.score for one in found]
    traits = dict.fromkeys(label.trait for label in labels)
    agreed = tuple(_one(trait, labels, scores) for trait in traits)
    return Compared(judge.name, agreed, mean_mass(one.mass for one in found))


def _json_rows(path: Path) -> Iterator[tuple[str, object]]:
    for place, line in raw_lines(path):
        try:
            yield place, decoded(line)
        except ValueError as error:
            raise ConfigError(f"{place}: {error}") from error


def _csv_rows(path: Path) -> Iterator[tuple[str, object]]:
    """Columns are named in the first line; cells that are empty are left out, as are other columns."""
    try:
        rows = csv.DictReader(io.StringIO(content(path).decode("utf-8-sig"), newline=""), strict=True)
        missing = {"question", "answer", "trait"} - set(rows.fieldnames or ())
        if missing:
            raise ConfigError(f"{path}:1: no column named {', '.join(sorted(missing))}")
        for row in rows:
            yield f"{path}:{rows.line_num}", {key: _cell(key, text) for key, text in row.items() if text}
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from error


def _cell(column: str, text: str) -> object:
    """Labels are `true` or `false`, `1` or `0`, `yes` or `no` in any case; scores are numbers."""
    if column == "label":
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            text.strip().lower(), text
        )
    return text


def _label(data: object, place: str) -> Label:
    try:
        return Label.model_validate(data)
    except ValidationError as error:
        problems = validation_problems(error, data, Label)
        raise ConfigError("\n".join(p.describe(place) for p in problems)) from error


def _request(label: Label, rubric: str) -> JudgeRequest:
    return JudgeRequest(metric=label.trait, rubric=rubric, question=label.question, answer=label.answer)


def _one(trait: str, labels: Sequence[Label], scores: Sequence[float | None]) -> Agreement:
    mine = [(label, score) for label, score in zip(labels, scores, strict=True) if label.trait == trait]
    judged, people = [score for _, score in mine], [label.value for label, _ in mine]
    return agreement(trait, judged, people, scored=mine[0][0].score is not None)
