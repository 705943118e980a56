"""Files that only their owner may use. On Windows nothing is checked: file modes mean nothing there."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

log = logging.getLogger("guardrail")

OTHERS = stat.S_IRWXG | stat.S_IRWXO
KINDS = ("", "-wal", "-shm")
"""A SQLite file, and those that SQLite keeps beside it."""


def make_private(path: Path) -> None:
    """Take away the rights that others have to an existing file, and say so; warn of what stays open."""
    if os.name == "nt":
        return
    for file in (path.with_name(path.name + kind) for kind in KINDS):
        if file.is_file() and stat.S_IMODE(file.stat().st_mode) & OTHERS:
            _close(file)
    folder = path.parent.stat().st_mode
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        log.warning("any user can replace or remove %s: its folder is writable for all", path)


def _close(file: Path) -> None:
    try:
        file.chmod(stat.S_IMODE(file.stat().st_mode) & ~OTHERS)
        log.warning("%s was open to other users; it is now private to its owner", file)
    except OSError as error:
        log.warning("%s is open to other users, which could not be changed: %s", file, error.strerror)
