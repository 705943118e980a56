"""Parquet files and folders of `datasets`: rows of Arrow tables, numbered from 1."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardrail.errors import ConfigError
from guardrail.train.screening import data
from guardrail.train.screening.data import Chunk, Writer, digest

SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True)
class Parquet:
    """A Parquet file."""

    path: Path
    suffix: str = SUFFIX

    def rows(self) -> int:
        """How many rows there are."""
        from pyarrow import parquet

        with self._damaged(), parquet.ParquetFile(self.path) as file:
            return file.metadata.num_rows

    def chunks(self) -> Iterator[Chunk]:
        """All rows. Raises ConfigError for a damaged file."""
        return _numbered(self._tables())

    def _tables(self) -> Iterator[Any]:
        import pyarrow as pa
        from pyarrow import parquet

        with self._damaged(), parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(data.CHUNK):
                yield pa.Table.from_batches([batch])

    @contextmanager
    def _damaged(self) -> Generator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{self.path}: cannot be read as Parquet: {error}") from error

    def writer(self, path: Path) -> Writer:
        """Writes the columns as they were."""
        return TableWriter(path)

    def sha256(self) -> str:
        """The hash of the file."""
        return digest([self.path])


@dataclass(frozen=True, slots=True)
class Saved:
    """A folder that `datasets` saved."""

    path: Path
    suffix: str = SUFFIX

    def rows(self) -> int:
        """How many rows there are."""
        return len(self._loaded())

    def chunks(self) -> Iterator[Chunk]:
        """All rows. Raises ConfigError for a damaged folder."""
        return _numbered(self._loaded().with_format("arrow").iter(data.CHUNK))

    def _loaded(self) -> Any:
        from datasets import Dataset

        try:
            return Dataset.load_from_disk(str(self.path))
        except Exception as error:  # the library raises its own errors, and those of Arrow and of JSON
            raise ConfigError(f"{self.path}: `datasets` cannot load it: {error}") from error

    def writer(self, path: Path) -> Writer:
        """Writes the columns as they were, to a Parquet file."""
        return TableWriter(path)

    def sha256(self) -> str:
        """The hash of all files of the folder."""
        return digest(sorted(path for path in self.path.iterdir() if path.is_file()))


def _numbered(tables: Iterable[Any]) -> Iterator[Chunk]:
    first = 1
    for table in tables:
        numbers = range(first, first + len(table))
        yield Chunk(numbers=numbers, values=table.to_pylist(), raw=table)
        first += len(table)


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
