"""What data on disk is: rows in numbered chunks, which can be written again as they were read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

CHUNK = 1024
"""How many rows are read, measured and stored at a time."""


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

    @property
    def path(self) -> Path: ...
    @property
    def suffix(self) -> str: ...
    def rows(self) -> int: ...
    def chunks(self) -> Iterator[Chunk]: ...
    def writer(self, path: Path) -> Writer: ...
    def sha256(self) -> str: ...


def digest(paths: Sequence[Path]) -> str:
    """The SHA-256 of the contents of files, read in pieces."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                found.update(piece)
    return found.hexdigest()
