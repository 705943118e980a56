"""Training data from a file: conversations, and the rows that cannot be trained on, with the reasons.

Rows are read as `data screen` reads them. Nothing is dropped silently: bad rows are counted, and written to
`set-aside.jsonl`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardrail.engines.transformers.rendering import Renderer
from guardrail.errors import ConfigError, PromptError
from guardrail.files.json_lines import refuse
from guardrail.train.finetuning.encoding import encoded
from guardrail.train.finetuning.settings import Loss
from guardrail.train.intervention import Conversation
from guardrail.train.screening.files import Data, open_data
from guardrail.train.screening.rows import SHAPES, BadRow, Sample, Samples, Shape
from guardrail.types import Message

ASIDE = "set-aside.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """A row that is not trained on: its number from 1, what is wrong with it, and the row itself."""

    row: int
    kind: str
    reason: str
    data: Any = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What a file holds. `shape`: the keys that its rows have."""

    sha256: str
    shape: Shape
    conversations: Sequence[Conversation] = field(repr=False)
    aside: Sequence[SetAside] = field(repr=False)

    @property
    def loss(self) -> Loss:
        """Rows of `messages` are trained on in every reply, pairs only in the reply that they end with."""
        return "completion" if self.shape == SHAPES[0] else "last"

    @property
    def counts(self) -> Mapping[str, int]:
        """How many rows were set aside, by what is wrong with them."""
        return dict(Counter(one.kind for one in self.aside))


def read_data(
    path: Path, renderer: Renderer, longest: int, *, strict: bool = False, folder: Path | None = None
) -> TrainingData:
    """Read JSON Lines, Parquet or a folder of `datasets`. Raises ConfigError if no row can be trained on.

    strict: any row that cannot be trained on is an error, with its number. folder: where the rows that are
    set aside are written, also if none is left to train on.
    """
    data, reader = open_data(path), _Reader(renderer, longest)
    reader.read(data)
    if strict:
        refuse([f"{path}:{one.row}: {one.reason}" for one in reader.aside])
    if folder is not None:
        _write(reader.aside, folder)
    if not reader.found or reader.samples.shape is None:
        hint = f"{path}: no row can be trained on"
        refuse([f"{path}:{one.row}: {one.reason}" for one in reader.aside], hint)
        raise ConfigError(f"{path}: holds no row")
    return TrainingData(
        sha256=data.sha256(), shape=reader.samples.shape, conversations=reader.found, aside=reader.aside
    )


def _write(aside: Sequence[SetAside], folder: Path) -> None:
    """Write the rows that were set aside; no file without any, not even one of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    if not aside:
        (folder / ASIDE).unlink(missing_ok=True)
        return
    with (folder / ASIDE).open("w", encoding="utf-8") as file:
        for one in aside:
            said = {"row": one.row, "kind": one.kind, "reason": one.reason, "data": one.data}
            file.write(json.dumps(said, ensure_ascii=False) + "\n")


class _Reader:
    """The rows of one file."""

    def __init__(self, renderer: Renderer, longest: int) -> None:
        self._renderer, self._longest = renderer, longest
        self.samples = Samples()
        self._first: dict[bytes, int] = {}
        self.found: list[Conversation] = []
        self.aside: list[SetAside] = []

    def read(self, data: Data) -> None:
        for number, value, shown in _rows(data):
            try:
                self.found.append(self._conversation(value, number))
            except BadRow as error:
                self.aside.append(SetAside(row=number, kind=error.kind, reason=str(error), data=shown))

    def _conversation(self, value: object, number: int) -> Conversation:
        row = self.samples.read(value)
        found = _whole(row)
        self._check_length(found)
        if (first := self._first.setdefault(row.key, number)) != number:
            raise BadRow("duplicate", f"the same prompts and replies as row {first}")
        return found

    def _check_length(self, found: Conversation) -> None:
        try:
            tokens = len(encoded(self._renderer, found, "all").ids)
        except PromptError as error:
            raise BadRow("unreadable", str(error)) from error
        if tokens > self._longest:
            raise BadRow("too long", f"{tokens} tokens; at most {self._longest} are allowed")


def _whole(row: Sample) -> Conversation:
    """The conversation up to its last reply."""
    if row.tools:
        raise BadRow("unreadable", "`tools`: conversations with tools are not trained on")
    last = row.exchanges[-1]
    return (*last.prompt, Message("assistant", last.reply))


def _rows(data: Data) -> Iterator[tuple[int, object, Any]]:
    for chunk in data.chunks():
        for place, (number, value) in enumerate(zip(chunk.numbers, chunk.values, strict=True)):
            yield number, value, chunk.shown(place)
