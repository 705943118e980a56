"""Audit logs: each request is recorded at the decision and at the end, in a hash chain. No torch.

`JsonLines` and `Sqlite` are the built-in sinks; `read`, `history` and `verify` understand the files of both.
"""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.audit.anchor import Anchor
from guardrail.audit.keys import Key, load_key
from guardrail.audit.lines import Event, Evidence
from guardrail.audit.pruning import prune
from guardrail.audit.reading import events, history, read, verify, verify_all
from guardrail.audit.sinks import JsonLines, Sqlite
from guardrail.audit.verification import VerifyReport
from guardrail.errors import AuditError, ConfigError
from guardrail.files.records import new_id, prompt_sha256, text_sha256, utc_now
from guardrail.plugins.audit import AuditSettings, AuditSink
from guardrail.plugins.hookspecs import hookimpl

__all__ = [
    "Anchor",
    "Event",
    "Evidence",
    "JsonLines",
    "Key",
    "Sqlite",
    "VerifyReport",
    "events",
    "history",
    "load_key",
    "new_id",
    "prompt_sha256",
    "prune",
    "read",
    "text_sha256",
    "utc_now",
    "verify",
    "verify_all",
]


@hookimpl
def guardrail_audit_sinks(settings: AuditSettings) -> Sequence[AuditSink]:
    """The sinks `jsonl` and `sqlite`, each if the settings give it a file."""
    key, files = load_key(settings.key), {JsonLines: settings.jsonl, Sqlite: settings.sqlite}
    try:
        return [
            kind(path, key=key, anchor=_anchor(settings, path, key)) for kind, path in files.items() if path
        ]
    except (AuditError, OSError, ValueError) as error:
        raise ConfigError(f"audit: {error}") from error


def _anchor(settings: AuditSettings, log: str, key: Key | None) -> Anchor | None:
    where = settings.anchor
    return None if where is None else Anchor(where.file, log, where.every_s, key)
