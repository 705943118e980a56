"""Who is logged in, and which forms they were given. Kept in memory: a restart logs everybody out.

A form carries a token that is bound to the session and to the path it is sent to, and holds once: another
site cannot make one (CSRF), and a form that is sent again is refused.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from guardrail.serve.errors import ApiError
from guardrail.serve.keys import Key

IDLE_S, LIFE_S = 30 * 60.0, 8 * 3600.0
"""A session ends after so long without a request, and after so long in any case."""
MAX_SESSIONS = 1000
MAX_FORMS = 10_000
"""How many forms one session may send."""


@dataclass
class Session:
    """One browser of one person. `key` is what they logged in with; None on a server without keys.

    `begun` and `seen` are in seconds of the clock of its `Sessions`.
    """

    key: Key | None
    begun: float
    seen: float
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    _used: set[str] = field(default_factory=set[str], repr=False)

    def token(self, path: str) -> str:
        """A new token for one form that is sent to this path."""
        nonce = secrets.token_urlsafe(16)
        return f"{nonce}.{self._seal(nonce, path)}"

    def spend(self, path: str, token: str) -> None:
        """Take the token of a form. Raises ApiError unless it was made for this path here, and never used."""
        nonce, _, seal = token.partition(".")
        if not hmac.compare_digest(seal.encode(), self._seal(nonce, path).encode()):
            text = "This form is not from your session. Open the page again and send its form."
            raise ApiError(403, text, code="form_not_valid")
        if nonce in self._used:
            text = "This form was sent before. What it said was not done again; open the page to go on."
            raise ApiError(409, text, code="form_replayed")
        self._used.add(nonce)

    @property
    def full(self) -> bool:
        """Whether it has sent all the forms that it may."""
        return len(self._used) >= MAX_FORMS

    def _seal(self, nonce: str, path: str) -> str:
        return hmac.digest(self._secret, f"{nonce} {path}".encode(), "sha256").hex()


@dataclass
class Sessions:
    """All sessions of one server. `keys` gives the keys in force: who loses the key is logged out."""

    keys: Callable[[], Sequence[Key]]
    clock: Callable[[], float] = time.monotonic
    _known: dict[str, Session] = field(default_factory=dict[str, Session], repr=False)
    _open: Session | None = field(default=None, repr=False)

    def begin(self, key: Key) -> str:
        """A new session; returns its id, which only its cookie holds."""
        now = self.clock()
        for name in [name for name, session in self._known.items() if self._over(session)]:
            del self._known[name]
        while len(self._known) >= MAX_SESSIONS:
            del self._known[min(self._known, key=lambda name: self._known[name].seen)]
        made = secrets.token_urlsafe(32)
        self._known[made] = Session(key, now, now)
        return made

    def find(self, session_id: str) -> Session | None:
        """The session with this id, with its key as it is now; None if it has ended or the key is gone."""
        session = self._known.get(session_id)
        if session is None or session.key is None:
            return None
        key = self._in_force(session.key)
        if key is None or self._over(session):
            self.end(session_id)
            return None
        session.key, session.seen = key, self.clock()
        return session

    def everyone(self) -> Session:
        """The session of all visitors of a server without keys."""
        if self._open is None or self._open.full:
            self._open = Session(None, self.clock(), self.clock())
        return self._open

    def end(self, session_id: str) -> None:
        """Log out."""
        self._known.pop(session_id, None)

    def _in_force(self, key: Key) -> Key | None:
        return next((one for one in self.keys() if (one.name, one.sha256) == (key.name, key.sha256)), None)

    def _over(self, session: Session) -> bool:
        now = self.clock()
        return session.full or now - session.seen > IDLE_S or now - session.begun > LIFE_S
