"""JSON Lines: a row for each line that is not blank, numbered like the lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from guardrail.errors import ConfigError
from guardrail.files.json_text import decoded
from guardrail.train.screening import data
from guardrail.train.screening.data import Chunk, Writer, digest
from guardrail.train.screening.rows import BadRow

LONGEST_LINE = 1 << 24
"""Bytes. The rest of a longer line is skipped without being held."""


@dataclass(slots=True)
class JsonLines:
    """A line of JSON for each row."""

    path: Path
    suffix: str = ".jsonl"

    def rows(self) -> int:
        """How many lines are not blank."""
        return sum(bool(line.strip()) for _, line in _lines(self.path))

    def chunks(self) -> Iterator[Chunk]:
        """The rows that are not blank."""
        lines: list[tuple[int, bytes]] = []
        for number, line in _lines(self.path):
            if line.strip():
                lines.append((number, line))
            if len(lines) == data.CHUNK:
                yield self._chunk(lines)
                lines = []
        if lines:
            yield self._chunk(lines)

    def _chunk(self, lines: Sequence[tuple[int, bytes]]) -> Chunk:
        raw = [line for _, line in lines]
        return Chunk(numbers=[number for number, _ in lines], values=[_decoded(one) for one in raw], raw=raw)

    def writer(self, path: Path) -> Writer:
        """Writes the lines as they were."""
        return LineWriter(path.open("wb"))

    def sha256(self) -> str:
        """The hash of the file."""
        return digest([self.path])


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                yield number, line
                _skip(file, line)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _skip(file: BinaryIO, line: bytes) -> None:
    while len(line) == LONGEST_LINE and not line.endswith(b"\n"):
        line = file.readline(LONGEST_LINE)


def _decoded(line: bytes) -> Any:
    if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
        return BadRow("too long", f"a line of {LONGEST_LINE:,} bytes or more")
    try:
        # without its end, an error at the end of a line is placed in the line, not in the next one
        return decoded(line.rstrip(b"\r\n"))
    except ValueError as error:
        return BadRow("broken line", str(error))


@dataclass(slots=True)
class LineWriter:
    """Writes lines of bytes."""

    file: BinaryIO

    def write(self, chunk: Chunk, taken: Sequence[bool]) -> None:
        """Write the lines that are taken; the last line of a file may lack its end."""
        for line, wanted in zip(chunk.raw, taken, strict=True):
            if wanted:
                self.file.write(line if line.endswith(b"\n") else line + b"\n")

    def close(self) -> None:
        """Nothing follows."""
        self.file.close()
