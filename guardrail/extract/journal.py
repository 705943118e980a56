"""Append-only JSON Lines that survive a kill: the recipe, then rows in fixed batches, each synced to disk.

Opening a file cuts off everything after the last whole batch (a torn line, half a batch), so that a resumed
run writes exactly the bytes of an uninterrupted one. The journal does not interpret its rows.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeAlias

from guardrail.errors import ExtractionError
from guardrail.files.json_text import decoded

try:
    import fcntl
except ImportError:  # Windows: the folder is not locked
    fcntl = None  # type: ignore[assignment]

Row: TypeAlias = Mapping[str, Any]
Recipe: TypeAlias = Mapping[str, Any]
Report: TypeAlias = Callable[[str, int, int], None]
"""Called after every batch with the stage, the number of rows done and the total."""


def silent(_stage: str, _done: int, _total: int) -> None:
    """A Report that does nothing."""


class Journal:
    """A file of `total` rows in batches of `batch`. Uses eight bytes of memory per row; rows stay on disk.

    Raises ExtractionError if the file was begun under another recipe, or cannot be read or written.
    """

    def __init__(self, path: Path, recipe: Recipe, total: int, batch: int) -> None:
        self.path, self.recipe, self.total, self.batch = path, recipe, total, batch
        header = _line({"recipe": recipe})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                self._starts = self._opened(file, header)
        except OSError as error:
            raise ExtractionError(f"{path}: {error.strerror}") from error

    def _opened(self, file: BinaryIO, header: bytes) -> array[int]:
        file.seek(0)
        first = file.readline()
        if not first.endswith(b"\n"):
            file.truncate(0)
            _write(file, header)
            return array("q", [len(header)])
        check_recipe(self.path, _recipe_of(self.path, first), self.recipe)
        starts = _line_starts(file)
        whole = len(starts) - 1 if len(starts) > self.total else (len(starts) - 1) // self.batch * self.batch
        del starts[whole + 1 :]
        file.truncate(starts[-1])
        return starts

    def __len__(self) -> int:
        """The number of rows on disk."""
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> dict[str, Any]:
        """One row, read from disk."""
        with self.path.open("rb") as file:
            file.seek(self._starts[number])
            return json.loads(file.read(self._starts[number + 1] - self._starts[number]))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))

    def complete(
        self,
        stage: str,
        rows: Callable[[Sequence[int]], Sequence[Row]],
        report: Report,
        together: int = 1,
    ) -> Self:
        """Compute and append the missing batches; `rows` gets the row numbers of some batches `together`."""
        report(stage, len(self), self.total)
        while len(self) < self.total:
            self._append(rows(range(len(self), min(len(self) + together * self.batch, self.total))))
            report(stage, len(self), self.total)
        return self

    def _append(self, rows: Sequence[Row]) -> None:
        lines = [_line(row) for row in rows]
        try:
            with self.path.open("ab") as file:
                _write(file, b"".join(lines))
        except OSError as error:
            raise ExtractionError(f"{self.path}: {error.strerror}") from error
        for line in lines:
            self._starts.append(self._starts[-1] + len(line))


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _line(value: Row) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _line_starts(file: BinaryIO) -> array[int]:
    """Where each row begins, and where the last whole one ends; `file` is positioned after the header."""
    starts = array("q", [file.tell()])
    for line in file:
        if line.endswith(b"\n"):
            starts.append(starts[-1] + len(line))
    return starts


def _recipe_of(path: Path, header: bytes) -> Recipe:
    try:
        return {**decoded(header)["recipe"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ExtractionError(f"{path}: not a file of this kind; choose another folder") from error


def check_begun(path: Path, known: Recipe) -> None:
    """As `check_recipe`, for a file that may exist and what is known before a model is loaded."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        first = file.readline()
    if first.endswith(b"\n"):
        found = _recipe_of(path, first)
        check_recipe(path, {key: found.get(key) for key in known}, known)


def rows_in(path: Path) -> int:
    """The number of rows in a file that may not exist."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return max(0, sum(line.endswith(b"\n") for line in file) - 1)


def check_recipe(path: Path, found: Recipe, wanted: Recipe) -> None:
    """Raises ExtractionError, with the differences, if a file was begun with another recipe."""
    wanted = json.loads(_line(wanted))
    differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    if differing:
        names = ", ".join(
            f"{key} ({_short(found.get(key))}, now {_short(wanted.get(key))})" for key in differing
        )
        raise ExtractionError(f"{path} was begun with another recipe: {names}; choose another folder")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Locks the folder. Raises ExtractionError if another process uses it, or if it cannot be created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise ExtractionError(f"{folder}: {error.strerror}") from error
    with file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ExtractionError(f"another process is using {folder}") from error
        yield
