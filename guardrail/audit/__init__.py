"""Audit records: written with the decision, closed with the outcome, chained by hashes. No torch.

`JsonLines` and `Sqlite` are the built-in sinks; `read` and `verify` understand the files of both.
"""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.audit.jsonl import JsonLines
from guardrail.audit.reading import Event, events, read, verify
from guardrail.audit.sqlite import Sqlite
from guardrail.audit.verification import VerifyReport
from guardrail.files.records import new_id, prompt_sha256, text_sha256, utc_now
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import AuditSettings, AuditSink

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
    """`jsonl` and `sqlite`, where the settings name their files."""
    jsonl = [JsonLines(settings.jsonl)] if settings.jsonl else []
    sqlite = [Sqlite(settings.sqlite)] if settings.sqlite else []
    return [*jsonl, *sqlite]
