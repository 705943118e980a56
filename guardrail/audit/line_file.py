"""A log as a text file, one line per event. A file lock lets several processes share it."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from guardrail.audit.lines import GENESIS, line_hash
from guardrail.audit.stores import Cut, MakeLine, Patience, ProcessLock
from guardrail.files.private import make_private

try:
    import fcntl
except ImportError:  # Windows: one process per file
    fcntl = None  # type: ignore[assignment]

BLOCK = 1 << 16
RETRY_S = 0.01


class LineFile:
    """The `Store` of the sink `jsonl` and of anchors. Made on creation if there is no such file.

    The operating system has a line before `append` returns; with `fsync`, the disk. To rotate the file, move
    it: a new file begins a new chain.
    """

    def __init__(self, path: Path, fsync: bool = False) -> None:
        self.path, self.fsync = path, fsync
        self._lock = ProcessLock()
        self._patience = Patience()
        self._end = (-1, -1, "")
        with self._opened():
            make_private(path)

    def append(self, make: MakeLine) -> str:
        """Append a line; returns its hash."""
        with self._lock, self._opened() as file:
            status = os.fstat(file)
            line = make(self._prev(file, status))
            torn = b"" if _ends_whole(file, status.st_size) else b"\n"
            self._write(file, torn + line + b"\n", status.st_size)
            head = line_hash(line)
            self._end = (status.st_ino, status.st_size + len(torn) + len(line) + 1, head)
            return head

    def first(self) -> bytes | None:
        """The first line; None if there is none."""
        with self.path.open("rb") as file:
            return file.readline().removesuffix(b"\n") or None

    def last(self) -> bytes | None:
        """The last line, torn or not; None if there is none."""
        with self._lock, self._opened() as file:
            status = os.fstat(file)
            last = _last_line(file, status.st_size)
            if last is not None:
                self._end = (status.st_ino, status.st_size, line_hash(last))
            return last

    def cut(self, find: Callable[[Iterable[bytes]], Cut | None]) -> None:
        """Cut off what `find` says. Another file takes this one's place, so that a kill loses nothing."""
        # where a link leads: the link itself has no old lines
        path = self.path.resolve()
        with self._lock, self._opened(), path.open("rb") as file:
            if (cut := find(_lines(file))) is None:
                return
            file.seek(0)
            new = path.with_name(f"{path.name}.pruning")
            _write_rest(new, cut, islice(_lines(file), cut.count, None))
            new.replace(path)

    def close(self) -> None:
        """Does nothing, because no file is kept open."""

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
        file = self._locked()
        try:
            yield file
        finally:
            _release(file)
            os.close(file)

    def _locked(self) -> int:
        """The file, open and locked; not one that was moved or pruned away before the lock was there."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                if stat.S_ISFIFO(os.fstat(file).st_mode):
                    raise OSError(errno.EINVAL, "it is a pipe, which keeps no records", str(self.path))
                self._wait(file)
                if os.fstat(file).st_ino == self.path.stat().st_ino:
                    return file
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _wait(self, file: int) -> None:
        deadline = time.monotonic() + self._patience.seconds
        while not _taken(file):
            if time.monotonic() > deadline:
                self._patience.waited(in_vain=True)
                raise TimeoutError("another process holds the file")
            time.sleep(RETRY_S)
        self._patience.waited(in_vain=False)


def _taken(file: int) -> bool:
    """Whether the lock of a file is this process's now."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _release(file: int) -> None:
    # closing alone would not do if a process was forked meanwhile: it has the file and the lock as well
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_UN)


def _write_rest(path: Path, cut: Cut, kept: Iterable[bytes]) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(cut.first + b"\n")
        prev = cut.removed
        for line in kept:
            file.write(line + b"\n")
            prev = line_hash(line)
        file.write(cut.last(prev) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(file: Iterable[bytes]) -> Iterator[bytes]:
    return (line.removesuffix(b"\n") for line in file)


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
