"""Reads people's labels of replies: JSON Lines of `question`, `answer`, `trait` and `label` or `score`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from guardrail.errors import ConfigError
from guardrail.extract.judges.agreement import Agreement, agreement
from guardrail.extract.judges.asking import COHERENCE_RUBRIC
from guardrail.files.json_lines import raw_lines
from guardrail.files.json_text import decoded
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


def read_labels(path: Path) -> list[Label]:
    """Read a file. Raises ConfigError with the line, also for a trait with both labels and scores."""
    labels = [_read(line, place) for place, line in raw_lines(path)]
    if not labels:
        raise ConfigError(f"{path}: the file contains no labels")
    for trait in {label.trait for label in labels}:
        if len({label.score is None for label in labels if label.trait == trait}) > 1:
            raise ConfigError(f"{path}: `{trait}` has both labels and scores; use only one kind per trait")
    return labels


def compare(judge: Judge, labels: Sequence[Label], rubrics: Mapping[str, str]) -> Compared:
    """Have every reply judged and compare; `rubrics` by trait. Raises JudgeError."""
    known = {COHERENCE: COHERENCE_RUBRIC, **rubrics}
    scores = judge.scores([_request(label, known[label.trait]) for label in labels])
    traits = dict.fromkeys(label.trait for label in labels)
    return Compared(judge.name, tuple(_one(trait, labels, scores) for trait in traits))


def _read(line: bytes, place: str) -> Label:
    try:
        data = decoded(line)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from error
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
