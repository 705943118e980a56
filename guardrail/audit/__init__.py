"""Audit logs: each request is recorded at the decision and at the end, in a hash chain. No torch.

`JsonLines` and `Sqlite` are the built-in sinks; `read` and `verify` understand the files of both.
"""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.audit.jsonl import JsonLines
from guardrail.audit.reading import Event, events, read, verify
from guardrail.audit.sqlite import Sqlite
from guardrail.audit.verification import VerifyReport
from guardrail.files.records import new_id, prompt_sha256, text_sha256, utc_now
from guardrail.plugins.audit import AuditSettings, AuditSink
from guardrail.plugins.hookspecs import hookimpl

__all__ = [
    "Event",
    "JsonLines",
    "Sqlite",
    "VerifyReport",
    "events",
    "new_id",
    "prompt_sha256",
    "read",
    "text_sha256",
    "utc_now",
    "verify",
]


@hookimpl
def guardrail_audit_sinks(settings: AuditSettings) -> Sequence[AuditSink]:
    """The sinks `jsonl` and `sqlite`, each if the settings give it a file."""
    jsonl = [JsonLines(settings.jsonl)] if settings.jsonl else []
    sqlite = [Sqlite(settings.sqlite)] if settings.sqlite else []
    return [*jsonl, *sqlite]
