"""A policy file that may change while a guard runs: a candidate is checked as a whole, then swapped in."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from guardrail.errors import ConfigError, PolicyError
from guardrail.files.yaml import read_document
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import ActivePolicies, Source, load, resolve_calibration, resolve_vectors
from guardrail.types import Fingerprint

log = logging.getLogger("guardrail")

Accept = Callable[[ActivePolicies], None]


class PolicyWatcher:
    """Holds the active policies. Requests take `active` once and keep it, whatever is swapped in meanwhile.

    `accept` sees every candidate, the first included, and refuses it by raising a ConfigError.
    """

    def __init__(
        self, source: Source, fingerprint: Fingerprint, plugins: Plugins, accept: Accept | None = None
    ) -> None:
        self._source = source
        self._fingerprint = fingerprint
        self._plugins = plugins
        self._accept = accept
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen = self._digest()
        self.active = self._candidate()
        self.loaded_at = datetime.now(UTC)
        self.error: Exception | None = None
        """Why the last reload failed; None after one that succeeded."""
        self.reloads = 0
        self.failures = 0

    @property
    def sha256(self) -> str:
        """That of the active policies."""
        return self.active.sha256

    def reload(self) -> bool:
        """Check the file as it is now and swap it in; on any failure keep the last good one and say False."""
        with self._lock:
            self._seen = self._digest()
            try:
                candidate = self._candidate()
            except Exception as error:
                self.error, self.failures = error, self.failures + 1
                log.warning("policies were not reloaded, the last good ones stay: %s", error)
                return False
            self.active, self.loaded_at = candidate, datetime.now(UTC)
            self.error, self.reloads = None, self.reloads + 1
            return True

    def watch(self, interval_s: float = 2.0) -> None:
        """Reload whenever the content of the file, or of a file it names, changes. Needs a policy file."""
        if not isinstance(self._source, str | Path):
            raise ConfigError("only a policy file can be watched")
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._poll, args=(interval_s,), name="guardrail-policies", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Stop watching; waits for a reload that is under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _poll(self, interval_s: float) -> None:
        while not self._stop.wait(interval_s):
            if self._digest() != self._seen:
                self.reload()

    def _candidate(self) -> ActivePolicies:
        candidate = load(self._source, self._fingerprint, self._plugins)
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


def _files(path: Path) -> list[Path]:
    """The policy file, and the vectors and calibration that it names as far as it can be read."""
    try:
        data = read_document(path).data
    except PolicyError:
        return [path]
    named = [
        resolve(name, path.parent)
        for key, resolve in (("vectors", resolve_vectors), ("calibration", resolve_calibration))
        if isinstance(name := data.get(key), str)
    ]
    return [path, *named]


def _content(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b"unreadable"
