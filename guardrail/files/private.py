"""Files that only their owner may use. On Windows nothing is checked: file modes mean nothing there."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("guardrail")

OTHERS = stat.S_IRWXG | stat.S_IRWXO
KINDS = ("", "-wal", "-shm")
"""A SQLite file, and those that SQLite keeps beside it."""


def make_private(path: Path) -> None:
    """Take away the rights that others have to an existing file, and say so; warn of what stays open."""
    if os.name == "nt":
        return
    # SQLite keeps its files beside the one that a link leads to
    path = path.resolve()
    for file in (path.with_name(path.name + kind) for kind in KINDS):
        # whoever closes a database last removes the files beside it, at any moment
        with suppress(FileNotFoundError):
            _look_at(file)
    folder = path.parent.stat().st_mode
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        log.warning("any user can replace or remove %s: its folder is writable for all", path)


def _look_at(file: Path) -> None:
    mode = file.stat().st_mode
    if stat.S_ISREG(mode) and stat.S_IMODE(mode) & OTHERS:
        _close(file, stat.S_IMODE(mode) & ~OTHERS)


def _close(file: Path, mode: int) -> None:
    try:
        file.chmod(mode)
        log.warning("%s was open to other users; it is now private to its owner", file)
    except FileNotFoundError:
        raise
    except OSError as error:
        log.warning("%s is open to other users, which could not be changed: %s", file, error.strerror)
