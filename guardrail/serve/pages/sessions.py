"""Who is logged in, and which forms they have sent: in the file of the review queue, for all its processes.

The file holds hashes of session ids, never an id. A form carries a token that is bound to the session and to
the path it is sent to, and holds once: another site cannot make one (CSRF), and a form that is sent again is
refused, by whichever process.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from guardrail.files.sqlite import Table, connection, transaction
from guardrail.serve.errors import SERVER, ApiError
from guardrail.serve.keys import Key

IDLE_S, LIFE_S = 30 * 60.0, 8 * 3600.0
"""A session ends after so long without a request, and after so long in any case."""
SEEN_S = 30.0
"""How far the time of the last request on file may be behind: not every request writes."""
OLDEST = "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions ORDER BY seen DESC LIMIT -1 OFFSET ?)"
MAX_SESSIONS = 1000
MAX_FORMS = 10_000
"""How many forms one session may send."""
BUSY_S = 3.0
SESSIONS = Table(
    "sessions",
    {
        "id": "TEXT PRIMARY KEY",
        "key_name": "TEXT NOT NULL",
        "key_sha256": "TEXT NOT NULL",
        "begun": "REAL NOT NULL",
        "seen": "REAL NOT NULL",
    },
    "STRICT",
)
FORMS = Table(
    "sent_forms",
    {"id": "TEXT PRIMARY KEY", "session": "TEXT NOT NULL"},
    "STRICT",
    {"sent_forms_session": "session"},
)
OVER = "seen < :idle OR begun < :old"


@dataclass(frozen=True, slots=True)
class Session:
    """One browser of one person. `id` is what its cookie holds; `key` is None on a server without keys."""

    id: str = field(repr=False)
    key: Key | None

    @property
    def hash(self) -> str:
        """What the file holds of it."""
        return _hash(self.id)

    def token(self, path: str) -> str:
        """A new token for one form that is sent to this path."""
        nonce = secrets.token_urlsafe(16)
        return f"{nonce}.{self._seal(nonce, path)}"

    def nonce(self, path: str, token: str) -> str:
        """What tells this form from others. Raises ApiError unless its token was made for this path here."""
        nonce, _, seal = token.partition(".")
        if not hmac.compare_digest(seal.encode(), self._seal(nonce, path).encode()):
            text = "This form is not from your session. Open the page again and send its form."
            raise ApiError(403, text, code="form_not_valid")
        return nonce

    def _seal(self, nonce: str, path: str) -> str:
        return hmac.digest(self.id.encode(), f"form {nonce} {path}".encode(), "sha256").hex()


@dataclass
class Sessions:
    """All sessions of the servers that share a file. `keys` gives the keys in force: who loses one is out.

    Methods block, and raise ApiError if the file cannot be used.
    """

    keys: Callable[[], Sequence[Key]]
    path: Callable[[], Path]
    clock: Callable[[], float] = time.time
    _open: Session = field(default_factory=lambda: Session(secrets.token_urlsafe(32), None), repr=False)
    _spent: set[str] = field(default_factory=set[str], repr=False)

    def begin(self, key: Key) -> str:
        """A new session; returns its id, which only its cookie holds."""
        made, now = Session(secrets.token_urlsafe(32), key), self.clock()
        with self._writing(SESSIONS) as database:
            database.execute(f"DELETE FROM sessions WHERE {OVER}", self._limits)
            database.execute(OLDEST, (MAX_SESSIONS - 1,))
            row = (made.hash, key.name, key.sha256, now, now)
            database.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", row)
        with self._writing(FORMS) as database:
            database.execute("DELETE FROM sent_forms WHERE session NOT IN (SELECT id FROM sessions)")
        return made.id

    def find(self, session_id: str) -> Session | None:
        """The session with this id, with its key as it is now; None if it has ended or the key is gone."""
        if not session_id or not self.path().exists():
            return None
        known = {"id": _hash(session_id), **self._limits}
        with self._reading() as database:
            query = f"SELECT key_name, key_sha256, seen FROM sessions WHERE id = :id AND NOT ({OVER})"
            row = database.execute(query, known).fetchone()
        if row is None:
            return None
        name, digest, seen = row
        # a server with other keys may share the file, so a session whose key is not in force here stays
        key = next((one for one in self.keys() if (one.name, one.sha256) == (name, digest)), None)
        if key is None:
            return None
        if (now := self.clock()) - seen > SEEN_S:
            with self._writing(SESSIONS) as database:
                database.execute("UPDATE sessions SET seen = ? WHERE id = ?", (now, known["id"]))
        return Session(session_id, key)

    def everyone(self) -> Session:
        """The session of all visitors of this server, if it has no keys."""
        if len(self._spent) >= MAX_FORMS:
            self._open, self._spent = Session(secrets.token_urlsafe(32), None), set()
        return self._open

    def spend(self, session: Session, path: str, token: str) -> None:
        """Take the token of a form. Raises ApiError unless it was made for this path here, and never used."""
        form = _hash(f"{session.id} {session.nonce(path, token)}")
        if session.key is not None:
            self._send(session, form)
        elif form in self._spent:
            raise _replayed()
        else:
            self._spent.add(form)

    def end(self, session_id: str) -> None:
        """Log out, everywhere."""
        if session_id and self.path().exists():
            with self._writing(SESSIONS) as database:
                database.execute("DELETE FROM sessions WHERE id = ?", (_hash(session_id),))

    def _send(self, session: Session, form: str) -> None:
        with self._writing(FORMS) as database:
            count = "SELECT count(*) FROM sent_forms WHERE session = ?"
            (sent,) = database.execute(count, (session.hash,)).fetchone()
            kept = "INSERT INTO sent_forms VALUES (?, ?) ON CONFLICT DO NOTHING"
            new = database.execute(kept, (form, session.hash)).rowcount == 1
        if not new:
            raise _replayed()
        if sent + 1 >= MAX_FORMS:
            self.end(session.id)

    @property
    def cookie(self) -> str:
        """The name of the cookie: the same on all ports, because browsers do not tell ports apart either."""
        return f"guardrail-session-{_hash(str(self.path().absolute()))[:8]}"

    @property
    def _limits(self) -> dict[str, float]:
        now = self.clock()
        return {"idle": now - IDLE_S, "old": now - LIFE_S}

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        with _reported(), connection(self.path(), SESSIONS, BUSY_S) as database:
            yield database

    @contextmanager
    def _writing(self, table: Table) -> Generator[sqlite3.Connection]:
        with _reported(), connection(self.path(), table, BUSY_S) as database, transaction(database):
            yield database


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _replayed() -> ApiError:
    text = "This form was sent before. What it said was not done again; open the page to go on."
    return ApiError(409, text, code="form_replayed")


@contextmanager
def _reported() -> Generator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        text = "Logins are kept beside the review queue, and that file cannot be used now. Try again later."
        raise ApiError(503, text, type=SERVER, code="sessions_unavailable") from error
