"""Multiple-choice questions. The model's answer is the letter with the most likely first token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from guardrail.errors import ConfigError
from guardrail.extract.layers.effects import next_token
from guardrail.extract.prompts import mixed_prompts
from guardrail.extract.subject import Subject
from guardrail.files.json_lines import parse_lines
from guardrail.types import Message, Steering

LETTERS = "ABCDEFGHIJ"
INSTRUCTION = "Answer with the letter of the right option and nothing else."


class Line(BaseModel):
    """One line of a file of questions. `answer`: an index, or a letter."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: str = Field(min_length=1)
    options: list[str] = Field(min_length=2, max_length=len(LETTERS))
    answer: int | str

    @property
    def place(self) -> int | None:
        """The index of the right option; None if there is no such option."""
        place = LETTERS.find(self.answer) if isinstance(self.answer, str) and self.answer else self.answer
        return place if isinstance(place, int) and 0 <= place < len(self.options) else None


@dataclass(frozen=True, slots=True)
class MultipleChoice:
    """A question as put to the model, the number of options, and the index of the right one."""

    messages: tuple[Message, ...]
    options: int
    answer: int


def read_lines(path: Path) -> list[Line]:
    """JSON Lines: `{"question": "...", "options": ["...", ...], "answer": 0 or "A"}`.

    Raises ConfigError with every bad line.
    """
    rows = parse_lines(path, Line, lambda line: None if line.place is not None else _bad(line))
    if not rows:
        raise ConfigError(f"{path}: the file contains no question")
    return [line for _, line in rows]


def read_questions(path: Path) -> list[MultipleChoice]:
    """The questions of a file, as `read_lines` reads it, with letters in front of their options."""
    return [_question(line) for line in read_lines(path)]


def lettered(question: str, options: Sequence[str]) -> str:
    """A question with its options below it, each after its letter."""
    return "\n".join(
        [question, *(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))]
    )


def _bad(line: Line) -> None:
    last = LETTERS[len(line.options) - 1]
    raise ValueError(f"`answer` must be 0 to {len(line.options) - 1} or A to {last}, not {line.answer!r}")


def _question(line: Line) -> MultipleChoice:
    text = f"{lettered(line.question, line.options)}\n{INSTRUCTION}"
    return MultipleChoice((Message("user", text),), len(line.options), line.place or 0)


def right(
    subject: Subject, questions: Sequence[MultipleChoice], steering: Sequence[Steering] = ()
) -> list[bool]:
    """Whether the right letter has the largest log-probability, steered as by the guard.

    Raises ConfigError if the tokenizer begins two letters with the same token.
    """
    tokens = _letters(subject, max(question.options for question in questions))
    found = next_token(subject, mixed_prompts([q.messages for q in questions]), steering)[:, tokens]
    return [int(row[: q.options].argmax()) == q.answer for row, q in zip(found, questions, strict=True)]


def _letters(subject: Subject, count: int) -> list[int]:
    tokens = [
        subject.tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in LETTERS[:count]
    ]
    if len(set(tokens)) < count:
        raise ConfigError("this tokenizer encodes two option letters with the same first token")
    return tokens
