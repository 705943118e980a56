"""The anchor of a log: a second file that holds what the log ended with, at one time after another.

It is a log of its own, whose lines are `Anchored` records. Kept where whoever can change the log cannot
write, it shows that lines which it has sealed were changed, cut off or replaced later.
"""

from __future__ import annotations

import time
from pathlib import Path

from guardrail.audit.keys import Key
from guardrail.audit.line_file import LineFile
from guardrail.audit.lines import Anchored, chain_of, encode
from guardrail.audit.stores import Store
from guardrail.files.records import utc_now


class Anchor:
    """Seals the head of the log at the path `log` when `every_s` seconds have passed, and at the end.

    No thread does this: a head that is not yet sealed when a guard falls silent is sealed with the next
    record, or on closing. Raises OSError or ValueError if the file cannot be written.
    """

    def __init__(
        self, path: str | Path, log: str | Path, every_s: float = 60.0, key: Key | None = None
    ) -> None:
        if Path(path).resolve() == Path(log).resolve():
            raise ValueError(f"the anchor {path} is the log itself; name another file")
        self._file, self._key, self._every_s = LineFile(Path(path), fsync=True), key, every_s
        self.log = str(Path(log).resolve())
        self._sealed_at = float("-inf")
        self._open_head = ""

    def follow(self, store: Store, head: str) -> None:
        """The log has this head now; seal it if it is time."""
        self._open_head = head
        if time.monotonic() - self._sealed_at >= self._every_s:
            self.seal(store, head)

    def seal(self, store: Store, head: str, pruned: str = "") -> None:
        """Write down that the log has this head."""
        chain = chain_of(store.first() or b"")
        record = Anchored(time=utc_now(), log=self.log, chain=chain, head=head, pruned=pruned)
        self._file.append(lambda prev: encode("anchor", record, prev, self._key))
        self._sealed_at, self._open_head = time.monotonic(), ""

    def close(self, store: Store) -> None:
        """Seal the last head."""
        if self._open_head:
            self.seal(store, self._open_head)
