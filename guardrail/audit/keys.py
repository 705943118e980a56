"""The secret of an audit log: signs its lines, and hides who a record is about."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from guardrail.errors import ConfigError
from guardrail.plugins.audit import KeySource

log = logging.getLogger("guardrail")

MIN_BYTES = 16
MAC = b',"mac":"'
MAC_LENGTH = len(MAC) + 64 + len(b'"}')


@dataclass(frozen=True, slots=True)
class Key:
    """A secret of at least 16 bytes."""

    secret: bytes = field(repr=False)

    def signed(self, line: bytes) -> bytes:
        """A line (one JSON object) with its HMAC-SHA256 as the last key, `mac`."""
        return line[:-1] + MAC + self._digest(b"line", line).encode("ascii") + b'"}'

    def fits(self, line: bytes) -> bool:
        """Whether this key signed a line, and nobody has changed it since."""
        return is_signed(line) and hmac.compare_digest(self.signed(line[:-MAC_LENGTH] + b"}"), line)

    def alias(self, value: str) -> str:
        """What stands for an id in records. Only who has the key can tell which id that is."""
        return f"hmac:{self._digest(b'alias', value.encode('utf-8', 'surrogatepass'))[:32]}"

    def _digest(self, purpose: bytes, data: bytes) -> str:
        return hmac.digest(self.secret, purpose + b"\0" + data, "sha256").hex()


def is_signed(line: bytes) -> bool:
    """Whether a line claims to be signed."""
    return line[-MAC_LENGTH:].startswith(MAC) and line.endswith(b'"}')


def alias(value: str, key: Key | None) -> str:
    """What stands for an id in records. Without a key, ids that can be guessed can be recognised."""
    if key is not None:
        return key.alias(value)
    return f"sha256:{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def load_key(source: KeySource | None) -> Key | None:
    """The key that the settings name; None if they name none. Raises ConfigError without quoting it."""
    if source is None:
        return None
    secret = _from_file(Path(source.file)) if source.file is not None else _from_environment(source.env or "")
    if len(secret) < MIN_BYTES:
        raise ConfigError(
            f"the audit key in {source.file or source.env} has {len(secret)} bytes; "
            f"it needs at least {MIN_BYTES}, such as the output of `openssl rand -hex 32`"
        )
    return Key(secret)


def _from_environment(name: str) -> bytes:
    if name not in os.environ:
        raise ConfigError(f"the audit key is missing: the environment variable {name} is not set")
    return os.fsencode(os.environ[name]).strip()


def _from_file(path: Path) -> bytes:
    try:
        secret, mode = path.read_bytes().strip(), path.stat().st_mode
    except (OSError, ValueError) as error:
        raise ConfigError(f"the audit key cannot be read: {path}: {error}") from error
    if os.name != "nt" and stat.S_IMODE(mode) & (stat.S_IRGRP | stat.S_IROTH):
        log.warning("other users can read the audit key %s, and forge records with it", path)
    return secret
