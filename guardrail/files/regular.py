"""Files that are read again while a program runs. A pipe in their place would hold it up for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from guardrail.errors import ConfigError

UNREADABLE = b"unreadable"


def digest(path: Path) -> bytes:
    """The SHA-256 of a file's content; one value for whatever cannot be read, or is no file."""
    try:
        return hashlib.sha256(path.read_bytes()).digest() if path.is_file() else UNREADABLE
    except (OSError, ValueError):
        return UNREADABLE


def check_regular(paths: Iterable[Path]) -> None:
    """Raises ConfigError for a path at which there is something else than a file or a folder."""
    for path in paths:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ConfigError(f"{path} is a pipe or a device, which cannot be read again; give a file")
