"""Training data on disk, read and written in chunks: JSON Lines, Parquet, and folders of `datasets`.

Rows are numbered from 1: the lines of a JSON Lines file (blank ones count), the rows of the others. Memory
holds one chunk. What is kept is written as it was read: the same bytes, or the same columns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from guardrail.errors import ConfigError
from guardrail.files.json_text import decoded
from guardrail.train.screening.rows import BadRow

CHUNK = 1024
"""How many rows are read, measured and stored at a time."""
LONGEST_LINE = 1 << 24
"""Bytes. The rest of a longer line is skipped without being held."""
LINES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some rows: their numbers and their values, or what is wrong with them; `raw` is how they were read."""

    numbers: Sequence[int]
    values: Sequence[Any]
    raw: Any = field(repr=False)

    def shown(self, place: int) -> Any:
        """A row as it can be written into JSON: what was read of a line, or the columns of a table's row."""
        value = self.values[place]
        if isinstance(self.raw, list):
            return str(self.raw[place], "utf-8", "replace").rstrip("\r\n")
        return json.loads(json.dumps(value, default=str))


class Writer(Protocol):
    """Writes some rows of chunks to a file."""

    def write(self, chunk: Chunk, taken: Sequence[bool]) -> None: ...
    def close(self) -> None: ...


class Data(Protocol):
    """A data set. `suffix` is the ending of the files that its rows are written to."""

    path: Path
    suffix: str

    def chunks(self) -> Iterator[Chunk]: ...
    def writer(self, path: Path) -> Writer: ...
    def sha256(self) -> str: ...


def open_data(path: str | Path) -> Data:
    """The data set at a path. Raises ConfigError if there is none, or none of a known kind."""
    place = Path(path)
    if place.is_dir():
        return _folder(place)
    if not place.is_file():
        raise ConfigError(f"{place}: there is no such file or folder")
    if place.suffix == ".parquet":
        check_installed("pyarrow")
        return Parquet(place)
    if place.suffix in LINES:
        return JsonLines(place)
    raise ConfigError(
        f"{place}: not a kind of data that can be read; use .jsonl, .parquet, or a folder of `datasets`"
    )


def check_installed(package: str) -> None:
    """Raises ConfigError if a package of the extra `train` is missing."""
    if find_spec(package) is None:
        raise ConfigError(f'this needs {package}: pip install "persona-guardrail[train]"')


def _folder(path: Path) -> Data:
    if (path / "dataset_dict.json").is_file():
        try:
            splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        except (ValueError, KeyError, OSError) as error:
            raise ConfigError(f"{path}: a damaged folder of `datasets`: {error}") from error
        names = ", ".join(str(path / name) for name in splits)
        raise ConfigError(f"{path}: holds several splits; name one of them: {names}")
    if not (path / "state.json").is_file():
        raise ConfigError(f"{path}: not a folder that `datasets` saved (`save_to_disk`)")
    check_installed("datasets")
    return Saved(path)


@dataclass(slots=True)
class JsonLines:
    """A line of JSON for each row."""

    path: Path
    suffix: str = ".jsonl"

    def chunks(self) -> Iterator[Chunk]:
        """The rows that are not blank."""
        lines: list[tuple[int, bytes]] = []
        for number, line in _lines(self.path):
            if line.strip():
                lines.append((number, line))
            if len(lines) == CHUNK:
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
        return decoded(line)
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


class Tables:
    """Rows that come as Arrow tables."""

    suffix = ".parquet"

    def __init__(self, path: Path) -> None:
        self.path = path

    def tables(self) -> Iterator[Any]:
        """Tables of at most CHUNK rows."""
        raise NotImplementedError

    def chunks(self) -> Iterator[Chunk]:
        """All rows."""
        first = 1
        for table in self.tables():
            numbers = range(first, first + len(table))
            yield Chunk(numbers=numbers, values=table.to_pylist(), raw=table)
            first += len(table)

    def writer(self, path: Path) -> Writer:
        """Writes the columns as they were."""
        return TableWriter(path)


class Parquet(Tables):
    """A Parquet file."""

    def tables(self) -> Iterator[Any]:
        """Tables of at most CHUNK rows. Raises ConfigError for a damaged file."""
        import pyarrow as pa
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(CHUNK):
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{self.path}: cannot be read as Parquet: {error}") from error

    def sha256(self) -> str:
        """The hash of the file."""
        return digest([self.path])


class Saved(Tables):
    """A folder that `datasets` saved."""

    def tables(self) -> Iterator[Any]:
        """Tables of at most CHUNK rows. Raises ConfigError for a damaged folder."""
        from datasets import Dataset

        try:
            found = Dataset.load_from_disk(str(self.path)).with_format("arrow")
        except Exception as error:  # the library raises its own errors, and those of Arrow and of JSON
            raise ConfigError(f"{self.path}: `datasets` cannot load it: {error}") from error
        yield from found.iter(CHUNK)

    def sha256(self) -> str:
        """The hash of all files of the folder."""
        return digest(sorted(path for path in self.path.iterdir() if path.is_file()))


class TableWriter:
    """Writes Arrow tables to a Parquet file; no file without rows."""

    def __init__(self, path: Path) -> None:
        self._path, self._writer = path, None

    def write(self, chunk: Chunk, taken: Sequence[bool]) -> None:
        """Write the rows that are taken."""
        from pyarrow import parquet

        self._writer: Any = self._writer or parquet.ParquetWriter(self._path, chunk.raw.schema)
        if any(taken):
            self._writer.write_table(chunk.raw.filter(list(taken)))

    def close(self) -> None:
        """Write the end of the file."""
        if self._writer is not None:
            self._writer.close()


def digest(paths: Sequence[Path]) -> str:
    """The SHA-256 of the contents of files, read in pieces."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                found.update(piece)
    return found.hexdigest()
