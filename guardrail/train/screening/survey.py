"""What data holds, found by reading it once before any row is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from guardrail.files.json_lines import refuse
from guardrail.train.screening.data import Data
from guardrail.train.screening.files import open_data
from guardrail.train.screening.reading import Looked, Reader
from guardrail.train.screening.store import Cost, Row, Store


def survey(data: Data, reader: Reader) -> Iterator[Looked]:
    """What each chunk holds. Duplicates are found by a store of its own."""
    with TemporaryDirectory() as folder:
        store = Store(Path(folder) / "keys.sqlite", {}, 0)
        for chunk in data.chunks():
            looked = reader.read(chunk, store)
            yield looked
            seen = [Row(number=one.number, key=one.key) for one in looked.good]
            store.add(seen, chunk.numbers[-1], Cost())


def problems(data: Data, reader: Reader) -> list[str]:
    """Every row that cannot be screened, with its place, in the order of rows."""
    return [f"{data.path}:{row.number}: {row.problem}" for one in survey(data, reader) for row in one.bad]


def refuse_without_a_model(paths: Sequence[str | Path], source: str | None = None) -> None:
    """Raises ConfigError with every row that no model could be screened on: all but those too long for it."""
    refuse([said for path in paths for said in problems(open_data(path), Reader(lambda sample: (), source))])
