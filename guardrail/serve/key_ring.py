"""The API keys in force. Their file is read again when it changes; a wrong file changes nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from guardrail.files.regular import check_regular, digest
from guardrail.policy.reload import unrest_s
from guardrail.serve.keys import Key, load_keys

log = logging.getLogger("guardrail.serve")


class KeyRing:
    """Keys, and the file that they come from, if there is one. Any thread may use it.

    A server that has keys never comes to have none: a file without keys is wrong.
    """

    def __init__(self, keys: Sequence[Key], path: Path | None = None) -> None:
        self.active = tuple(keys)
        self.error: Exception | None = None
        """Why the latest reload failed, or None if it succeeded."""
        self._path, self._lock = path, threading.Lock()
        self._seen: bytes | None = None

    @property
    def names(self) -> list[str]:
        """The names of the keys in force."""
        return [key.name for key in self.active]

    def reload(self) -> Exception | None:
        """Read the file now. Returns what is wrong with it; the last good keys stay in force then."""
        with self._lock:
            return self._reload() if self._path is not None else None

    def look(self) -> None:
        """Read the file if it has changed."""
        with self._lock:
            if self._path is not None and digest(self._path) != self._seen:
                self._reload()

    def _reload(self) -> Exception | None:
        assert self._path is not None
        # whoever writes the file may not be done
        time.sleep(unrest_s([self._path]))
        self._seen = digest(self._path)
        try:
            check_regular([self._path])
            keys = load_keys(self._path)
        except Exception as error:
            self.error = error
            log.warning("API keys were not reloaded; the last good ones stay in force: %s", error)
            return error
        if keys != self.active:
            log.info("API keys were reloaded: %s", ", ".join(key.name for key in keys))
        self.active, self.error = keys, None
        return None
