"""The audit sink `jsonl`: one line per event. A file lock lets several processes share a file."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from guardrail.audit.lines import GENESIS, Kind, encode, line_hash
from guardrail.errors import AuditError
from guardrail.plugins.audit import AuditRecord

try:
    import fcntl
except ImportError:  # Windows: one process per file
    fcntl = None  # type: ignore[assignment]

BLOCK = 1 << 16


class JsonLines:
    """Appends to one file. Raises AuditError, already on creation, if the file cannot be written.

    The operating system has the line before `decided` returns, so killing the process loses nothing; with
    `fsync` it also survives a power cut. To rotate the file, move it: a new file begins a new chain.
    """

    name = "jsonl"

    def __init__(self, path: str | Path, fsync: bool = False) -> None:
        self.path = Path(path)
        self.fsync = fsync
        self._lock = threading.Lock()
        self._end = (-1, -1, "")
        with self._reported(), self._opened():
            pass

    def decided(self, record: AuditRecord) -> None:
        """Append the decision."""
        self._append("decision", record)

    def finished(self, record: AuditRecord) -> None:
        """Append the outcome."""
        self._append("outcome", record)

    def close(self) -> None:
        """Does nothing, because no file is kept open."""

    def _append(self, kind: Kind, record: AuditRecord) -> None:
        with self._lock, self._reported(), self._opened() as file:
            status = os.fstat(file)
            prev = self._prev(file, status)
            line = encode(kind, record, prev)
            torn = b"" if _ends_whole(file, status.st_size) else b"\n"
            self._write(file, torn + line + b"\n", status.st_size)
            self._end = (status.st_ino, status.st_size + len(torn) + len(line) + 1, line_hash(line))

    def _prev(self, file: int, status: os.stat_result) -> str:
        inode, size, known = self._end
        if (inode, size) == (status.st_ino, status.st_size):
            return known
        last = _last_line(file, status.st_size)
        return GENESIS if last is None else line_hash(last)

    def _write(self, file: int, data: bytes, size: int) -> None:
        try:
            written = 0
            while written < len(data):
                written += os.write(file, data[written:])
            if self.fsync:
                os.fsync(file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, size)
            raise

    @contextmanager
    def _opened(self) -> Generator[int, None, None]:
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    @contextmanager
    def _reported(self) -> Generator[None, None, None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise AuditError(f"audit log {self.path}: {error}") from error


def _ends_whole(file: int, size: int) -> bool:
    return size == 0 or _at(file, size - 1, 1) == b"\n"


def _last_line(file: int, size: int) -> bytes | None:
    """The last line, torn or not, without its newline; None if the file is empty."""
    end = size - 1 if size and _ends_whole(file, size) else size
    tail, start = b"", end
    while start > 0 and b"\n" not in tail:
        step = min(BLOCK, start)
        start -= step
        tail = _at(file, start, step) + tail
    return tail.rsplit(b"\n", 1)[-1] if size else None


def _at(file: int, offset: int, count: int) -> bytes:
    os.lseek(file, offset, os.SEEK_SET)
    return os.read(file, count)
