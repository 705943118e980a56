"""Reloads a policy file while a guard runs: the new version is checked as a whole, then swapped in."""

from __future__ import annotations

import atexit
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from guardrail.errors import ConfigError
from guardrail.files.forks import freed, renewed
from guardrail.files.yaml import read_document
from guardrail.plugins.manager import Plugins
from guardrail.plugins.packs import is_reference
from guardrail.policy.loading import (
    ActivePolicies,
    Source,
    load,
    located,
    resolve_calibration,
    resolve_vectors,
)
from guardrail.types import Fingerprint

log = logging.getLogger("guardrail")

Accept = Callable[[ActivePolicies], None]
ATTEMPTS = 5
SETTLE_S = 0.05
"""A file that was being written while it was read is read again after this pause."""


class PolicyWatcher:
    """Holds the active policies. A request takes `active` once and keeps it, even if a reload replaces it.

    `identify` gives the fingerprint of the model that a candidate is checked against. `accept` is called with
    every candidate, including the first, and raises a ConfigError to refuse it.
    """

    def __init__(
        self,
        source: Source,
        identify: Callable[[], Fingerprint],
        plugins: Plugins,
        accept: Accept | None = None,
    ) -> None:
        self._source = located(source, identify)
        self._identify = identify
        self._plugins = plugins
        self._accept = accept
        self.entering: Accept | None = None
        """Called with policies that are about to replace the active ones; raises to keep those."""
        self._lock, self._starting = freed(threading.Lock()), freed(threading.Lock())
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._interval_s: float | None = None
        self._seen = self._digest()
        self._active = self._candidate()
        _tell(self._active.plan.warnings)
        self.loaded_at = datetime.now(UTC)
        self.error: BaseException | None = None
        """Why the last reload failed, or None if it succeeded."""
        self.reloads = 0
        self.failures = 0
        renewed(self)

    @property
    def active(self) -> ActivePolicies:
        """The policies in force. In a forked process, watching begins again with the first look."""
        if self._thread is None and self._interval_s is not None:
            try:
                self.watch(self._interval_s)
            except RuntimeError as error:
                self._failed(error)
        return self._active

    @property
    def sha256(self) -> str:
        """The SHA-256 of the active policies."""
        return self.active.sha256

    def reload(self) -> bool:
        """Check the current file and swap it in. On any failure keep the last good policies; return False."""
        with self._lock:
            try:
                candidate = self._settled()
                if self.entering is not None:
                    self.entering(candidate)
            except Exception as error:
                self._failed(error)
                return False
            _tell(w for w in candidate.plan.warnings if w not in self._active.plan.warnings)
            self._active, self.loaded_at = candidate, datetime.now(UTC)
            self.error, self.reloads = None, self.reloads + 1
            return True

    def watch(self, interval_s: float = 2.0) -> None:
        """Reload whenever the policy file, or a file that it refers to, changes in content."""
        if not isinstance(self._source, str | Path):
            raise ConfigError("only a policy file can be watched")
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(
                    target=self._poll, args=(interval_s,), name="guardrail-policies", daemon=True
                )
                thread.start()
                self._thread, self._interval_s = thread, interval_s
                atexit.register(self.close)

    def close(self) -> None:
        """Stop watching. Waits for a running reload."""
        self._interval_s = None
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        atexit.unregister(self.close)

    def forked(self) -> None:
        """The thread is the parent's."""
        self._thread, self._stop = None, threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _poll(self, interval_s: float) -> None:
        while not self._stop.wait(interval_s):
            try:
                if self._digest() != self._seen:
                    self.reload()
            except BaseException as error:
                # whatever it is, also a plugin's SystemExit: nobody would start this thread again
                self._failed(error)

    def _failed(self, error: BaseException) -> None:
        self.error, self.failures = error, self.failures + 1
        log.warning("policies were not reloaded; the last good ones stay active: %s", error)

    def _settled(self) -> ActivePolicies:
        """A candidate from files that stayed as they were while they were read. Raises whatever is wrong."""
        for _ in range(ATTEMPTS):
            self._seen = self._digest()
            try:
                candidate = self._candidate()
            except Exception:
                # half a file is wrong as well; its writer has the rest in a moment
                time.sleep(SETTLE_S)
                if self._digest() == self._seen:
                    raise
            else:
                if self._digest() == self._seen:
                    return candidate
        raise ConfigError("the policy file, or a file that it names, changed all the time while it was read")

    def _candidate(self) -> ActivePolicies:
        candidate = load(self._source, self._identify(), self._plugins)
        if self._accept is not None:
            self._accept(candidate)
        return candidate

    def _digest(self) -> str:
        if not isinstance(self._source, str | Path):
            return ""
        digest = hashlib.sha256()
        for path in _files(Path(self._source)):
            digest.update(_content(path))
        return digest.hexdigest()


def _tell(warnings: Iterable[str]) -> None:
    """What a person should know about valid policies, once: each decision carries it as well."""
    for warning in warnings:
        log.warning("%s", warning)


def _files(path: Path) -> list[Path]:
    """The policy file and, if it can be read, the vector and calibration files that it refers to.

    Those of a pack do not change while it is installed.
    """
    try:
        data = read_document(path).data
        named = [
            resolve(name, path.parent)
            for key, resolve in (("vectors", resolve_vectors), ("calibration", resolve_calibration))
            if isinstance(name := data.get(key), str) and not is_reference(name)
        ]
    except Exception:
        # what is wrong is for the reload to say; until it is mended, the file itself is all there is to watch
        return [path]
    return [path, *named]


def _content(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b"unreadable"
