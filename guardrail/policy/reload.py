"""Reloads a policy file while a guard runs: the new version is checked as a whole, then swapped in."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Self

from guardrail.errors import ConfigError
from guardrail.files.forks import freed, renewed
from guardrail.files.regular import check_regular
from guardrail.files.regular import digest as content_digest
from guardrail.files.yaml import parse_document
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
from guardrail.types import Configuration, Fingerprint

log = logging.getLogger("guardrail")

Accept = Callable[[ActivePolicies], None]
ATTEMPTS = 5
SETTLE_S = 0.05
"""A file that was being written while it was read is read again after this pause."""
REST_S = 0.1
"""How long a file must not have been written to: the first half of a policy file may be a valid file."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What one reload did: the policies in force before and after it, and why it failed, if it did."""

    before: ActivePolicies
    after: ActivePolicies
    error: Exception | None = None


class PolicyWatcher:
    """Holds the active policies. A request takes `active` once and keeps it, even if a reload replaces it.

    `identify` gives the fingerprint of the model that a candidate is checked against. `accept` is called with
    every candidate, including the first, and raises a ConfigError to refuse it. `running` says how the model
    is run.
    """

    def __init__(
        self,
        source: Source,
        identify: Callable[[], Fingerprint],
        plugins: Plugins,
        accept: Accept | None = None,
        running: Callable[[], Configuration] | None = None,
    ) -> None:
        self._source = located(source, identify)
        self._identify = identify
        self._plugins = plugins
        self._accept, self._running = accept, running
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
        return self.try_reload().error is None

    def try_reload(self) -> Reload:
        """As `reload`; says which policies were in force before and after, and what was wrong."""
        with self._lock:
            return self._reload()

    def _reload(self) -> Reload:
        before = self._active
        try:
            candidate = self._settled()
            if self.entering is not None:
                self.entering(candidate)
        except Exception as error:
            self._failed(error)
            return Reload(before, before, error)
        _tell(w for w in candidate.plan.warnings if w not in before.plan.warnings)
        self._active, self.loaded_at = candidate, datetime.now(UTC)
        self.error, self.reloads = None, self.reloads + 1
        log.info("policies were reloaded; their sha256 is %s", candidate.sha256)
        return Reload(before, candidate)

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

    def __exit__(self, *_: object) -> None:
        self.close()

    def _poll(self, interval_s: float) -> None:
        while not self._stop.wait(interval_s):
            try:
                self._look()
            except BaseException as error:
                # whatever it is, also a plugin's SystemExit: nobody would start this thread again
                self._failed(error)

    def _look(self) -> None:
        with self._lock:
            if self._digest() != self._seen:
                self._reload()

    def _failed(self, error: BaseException) -> None:
        self.error, self.failures = error, self.failures + 1
        log.warning("policies were not reloaded; the last good ones stay active: %s", error)

    def _settled(self) -> ActivePolicies:
        """A candidate from files that stayed as they were while they were read. Raises whatever is wrong."""
        for _ in range(ATTEMPTS):
            time.sleep(unrest_s(self._files()))
            self._seen = self._digest()
            check_regular(self._files())
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
        running = self._running() if self._running else None
        candidate = load(self._source, self._identify(), self._plugins, running)
        if self._accept is not None:
            self._accept(candidate)
        return candidate

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for path in self._files():
            digest.update(content_digest(path))
        return digest.hexdigest()

    def _files(self) -> list[Path]:
        return _files(Path(self._source)) if isinstance(self._source, str | Path) else []


def _tell(warnings: Iterable[str]) -> None:
    """What a person should know about valid policies, once: each decision carries it as well."""
    for warning in warnings:
        log.warning("%s", warning)


def _files(path: Path) -> list[Path]:
    """The policy file and, if it can be read, the vector and calibration files that it refers to."""
    try:
        return [path, *_named(path, path.read_bytes())] if path.is_file() else [path]
    except Exception:
        # what is wrong is for the reload to say; until it is mended, the file itself is all there is to watch
        return [path]


@lru_cache(maxsize=8)
def _named(path: Path, content: bytes) -> tuple[Path, ...]:
    """The files that this content of a policy file refers to; those of a pack do not change.

    Cached, because a watcher asks every two seconds and YAML is slow to read.
    """
    data = parse_document(content.decode("utf-8-sig"), str(path), path, os.environ).data
    kinds = (("vectors", resolve_vectors), ("calibration", resolve_calibration))
    given = [(data.get(key), resolve) for key, resolve in kinds]
    return tuple(
        resolve(name, path.parent)
        for name, resolve in given
        if isinstance(name, str) and not is_reference(name)
    )


def unrest_s(paths: Iterable[Path]) -> float:
    """How much longer to wait until no file was written to for REST_S. A rename or a link changes no file."""
    age = time.time() - max(map(_written, paths), default=0.0)
    return min(max(0.0, REST_S - age), REST_S)


def _written(path: Path) -> float:
    """When the file was last written to, in seconds since 1970; 0 if there is none."""
    try:
        return path.stat().st_mtime
    except (OSError, ValueError):
        return 0.0
