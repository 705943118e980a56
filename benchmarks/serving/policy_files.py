"""The policy files that the server is measured with, made from the shipped one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from guardrail.files.yaml import read_document
from guardrail.policy.loading import shipped_policies

PATIENT = {"mode": "enforce", "on_error": "block", "timeout_ms": 60_000}
"""No policy gives up because a machine is busy: what is measured is the server."""


def guarded(log: Path | None) -> dict[str, object]:
    """All that ships for chatbots, with an audit log."""
    found: dict[str, object] = dict(read_document(shipped_policies()["chatbot"]).data)
    return {**found, "defaults": PATIENT, **_audit(log)}


def unguarded(log: Path | None) -> dict[str, object]:
    """The same server without a policy: the model runs without anything that looks into it."""
    empty = {"version": 1, "vectors": "demo", "calibration": "demo", "policies": [], "allow_empty": True}
    return {**empty, **_audit(log)}


def _audit(log: Path | None) -> dict[str, object]:
    return {} if log is None else {"audit": {"jsonl": str(log), "clear": ["conversation"]}}


def write(path: Path, policies: Mapping[str, object], mark: int = 0) -> Path:
    """Put a policy file in place at once, as careful operators do. JSON is YAML; `mark` makes it another."""
    return put(path, f"# {mark}\n{json.dumps(policies)}\n")


def put(path: Path, text: str) -> Path:
    """A file with this text, put in place at once."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8")
    return beside.replace(path)
