"""Closed questions with a persona and a checked answer: cloze, comparison (A : B = C : _), common sense.

The design is that of Ozaki et al. (NLP 2025), whose items are not published; these were written for this
package. Every prompt can be asked with its persona and without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from guardrail.errors import ConfigError
from guardrail.files.json_lines import parse_lines

FOLDER = Path(__file__).parent / "items"
TASKS = ("cloze", "comparison", "common-sense")
"""The tasks that are shipped."""
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


class Item(BaseModel):
    """One question: text that the answer continues.

    `answers`: the right answer, and other words that are as right. `alone`: whether it can be answered
    without the persona; otherwise ("my country") the persona decides.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    persona: Text
    prompt: Text
    answers: Annotated[tuple[Text, ...], Field(min_length=1)]
    alone: bool = True


def shipped(task: str) -> list[Item]:
    """The items of a shipped task. Raises ConfigError for another name."""
    if task not in TASKS:
        raise ConfigError(f"there is no task `{task}`; shipped: {', '.join(TASKS)}")
    return read(FOLDER / f"{task}.jsonl")


def read(path: Path) -> list[Item]:
    """Items of a file (JSON Lines). Raises ConfigError with every bad line, and for a file without items."""
    found = [item for _, item in parse_lines(path, Item)]
    if not found:
        raise ConfigError(f"{path}: the file contains no item")
    return found
