"""Training data on disk by its path: JSON Lines, Parquet, and folders of `datasets`.

Rows are numbered from 1: the lines of a JSON Lines file (blank ones count), the rows of the others. Memory
holds one chunk. What is kept is written as it was read: the same bytes, or the same columns.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from guardrail.errors import ConfigError
from guardrail.train.screening.data import Data
from guardrail.train.screening.lines import JsonLines
from guardrail.train.screening.tables import Parquet, Saved

LINES = (".jsonl", ".ndjson", ".json")


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
        _check_lines(place)
        return JsonLines(place)
    raise ConfigError(
        f"{place}: not a kind of data that can be read; use .jsonl, .parquet, or a folder of `datasets`"
    )


def _check_lines(path: Path) -> None:
    """A file called .json is often one JSON list, which would be read as a row for each of its lines."""
    if path.suffix != ".json":
        return
    with path.open("rb") as file:
        if file.read(1 << 10).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            raise ConfigError(f"{path}: one JSON list; write an object on each line (jq -c '.[]' {path})")


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
