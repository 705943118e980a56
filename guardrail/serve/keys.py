"""API keys: who may ask for what, with which tags, how much at once. Files hold hashes, never keys.

A key is 256 random bits, so that a plain SHA-256 of it tells nobody what it is.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from tempfile import mkstemp
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from guardrail.errors import ConfigError, DocumentError, PolicyError, Problem
from guardrail.files.problems import KeyPath, validation_problems
from guardrail.files.yaml import Document, parse_document, read_document
from guardrail.serve.errors import Answer, ApiError
from guardrail.serve.headers import single

Right: TypeAlias = Literal["ask", "review", "admin", "metrics"]
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
PREFIX = "gr-"
OPEN = ("/healthz", "/readyz")
"""Paths that need no key. Pages, which are open as well, ask for a login."""
IN_SCOPE = "guardrail_key"
HEAD = "version: 1\nkeys:\n"


class Entry(BaseModel):
    """One key in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tags: Annotated[tuple[str, ...] | None, Field(strict=False)] = None
    """The tags of every request with this key, which can then name none itself."""
    rights: Annotated[tuple[Right, ...], Field(strict=False)] = ("ask",)
    """What it is for: to ask the model, to decide on tickets, to manage the server, to read its metrics."""
    parallel: Annotated[int, Field(ge=1)] | None = None
    """How many requests it may have in the server at once."""


class Key(Entry):
    """A key with its name, which logs and reviews show."""

    name: Annotated[str, Field(pattern=NAME)]


class KeyFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1]
    keys: Annotated[dict[Annotated[str, Field(pattern=NAME)], Any], Field(min_length=1)]


def load_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a YAML file. Raises DocumentError with every problem and its place."""
    try:
        return _keys(read_document(path))
    except PolicyError as error:
        raise DocumentError(error.problems, error.source) from None


def _keys(document: Document) -> tuple[Key, ...]:
    problems = [*document.problems, *_problems(KeyFile, document.data, ())]
    entries = document.data.get("keys")
    entries = entries if isinstance(entries, Mapping) else {}
    for name, entry in entries.items():
        problems += _problems(Entry, entry, ("keys", str(name)))
    if problems:
        raise document.error(problems)
    return tuple(Key(name=name, **dict(Entry.model_validate(entry))) for name, entry in entries.items())


def _problems(kind: type[BaseModel], data: object, path: KeyPath) -> list[Problem]:
    try:
        kind.model_validate(data)
    except ValidationError as error:
        return validation_problems(error, data, kind, path)
    return []


def add_key(path: Path, name: str, tags: Sequence[str] | None, rights: Sequence[Right]) -> str:
    """A new key, whose hash is added to a file. Raises ConfigError and leaves the file as it is."""
    key = PREFIX + secrets.token_urlsafe(32)
    own = {"sha256": sha256(key), "rights": rights, **({} if tags is None else {"tags": tags})}
    # JSON is YAML
    entry = f"  {name}: {json.dumps(own)}\n"
    if path.exists() and name in {known.name for known in load_keys(path)}:
        raise ConfigError(f"{path} has a key called `{name}` already")
    before = path.read_text(encoding="utf-8").rstrip() + "\n" if path.exists() else HEAD
    try:
        _keys(parse_document(before + entry, str(path)))
        _write(path.resolve(), before + entry)
    except PolicyError as error:
        raise DocumentError(error.problems, str(path)) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return key


def _write(path: Path, text: str) -> None:
    """At once, so that no failure leaves half of the keys; for nobody else to read."""
    descriptor, beside = mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink()
        raise


def sha256(key: str) -> str:
    """What a file holds of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def found(keys: Sequence[Key], given: str) -> Key | None:
    """The key that was given. Takes as long for any other."""
    digest = sha256(given)
    matches = [key for key in keys if hmac.compare_digest(key.sha256, digest)]
    return matches[0] if matches else None


class Keys:
    """Lets requests in that name a key in force (`Authorization: Bearer` or `x-api-key`). Pure ASGI."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Callable[[], Sequence[Key]],
        open: Callable[[str], bool],
        answer: Answer,
        refused: Callable[[Scope, ApiError], Awaitable[None]],
    ) -> None:
        self._app, self._keys, self._open = app, keys, open
        self._answer, self._refused = answer, refused
        self._inside: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._open(scope["path"]) or not (keys := self._keys()):
            await self._app(scope, receive, send)
            return
        try:
            key = _known(keys, Headers(scope=scope))
            self._check_room(key)
        except ApiError as error:
            await self._refused(scope, error)
            response = await self._answer(Request(scope), error)
            await response(scope, receive, send)
            return
        scope[IN_SCOPE] = key
        self._inside[key.name] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._inside[key.name] -= 1

    def _check_room(self, key: Key) -> None:
        if key.parallel is not None and self._inside[key.name] >= key.parallel:
            text = f"The key `{key.name}` may have {key.parallel} requests at once. Ask again later."
            retry = {"retry-after": "1"}
            raise ApiError(429, text, type="requests", code="rate_limit_exceeded", headers=retry)


def _known(keys: Sequence[Key], headers: Headers) -> Key:
    scheme, _, token = (single(headers, "authorization") or "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else single(headers, "x-api-key") or ""
    asks = {"www-authenticate": "Bearer"}
    if not given:
        text = "You didn't provide an API key. Send it as `Authorization: Bearer YOUR_KEY`."
        raise ApiError(401, text, code="invalid_api_key", headers=asks)
    if (key := found(keys, given)) is None:
        text = "Incorrect API key provided. The operator of this server gives out keys."
        raise ApiError(401, text, code="invalid_api_key", headers=asks)
    return key


def caller(scope: Any) -> Key | None:
    """The key of a request; None if the server has no keys."""
    return scope.get(IN_SCOPE)
