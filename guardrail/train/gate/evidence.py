"""The evidence of a gate: one line for each thing that was measured, in the hash chain of an audit log.

`guardrail audit verify` checks it like any log: an edited, missing or torn line breaks the chain; with a key
every line is signed; the head that the gate prints, kept elsewhere, shows whether lines at the end are gone.
It holds hashes and numbers, no text of prompts, replies or data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from guardrail.audit import Anchor, Evidence, JsonLines, Key, utc_now, verify
from guardrail.train.gate.gate import GateResult
from guardrail.train.gate.plan import GatePlan
from guardrail.train.screening.files import open_data

LIBRARIES = ("persona-guardrail", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file of evidence, and the hash of its last line."""

    evidence: Path
    head: str


class EvidenceFile:
    """Appends to an evidence file, which later gates may go on with. Raises AuditError if it cannot."""

    def __init__(self, path: Path, key: Key | None = None, anchor: Path | None = None) -> None:
        self.path = path
        seal = None if anchor is None else Anchor(anchor, path, key=key)
        self._sink = JsonLines(path, key=key, anchor=seal)

    def add(self, what: str, content: Mapping[str, Any]) -> None:
        """Write down one thing that was measured, or what it was measured with."""
        self._sink.found(Evidence(time=utc_now(), what=what, content=content))

    def close(self) -> str:
        """Seal the file; the hash of its last line."""
        self._sink.close()
        return verify(self.path).head


def record(
    file: EvidenceFile, found: GateResult, plan: GatePlan, vectors_sha256: str, judge: str | None
) -> str:
    """Write everything down that a gate found; the hash of the last line, to keep elsewhere."""
    file.add("policy", {"sha256": plan.file.sha256, "policy": plan.policy.model_dump(mode="json")})
    file.add("models", {"base": asdict(found.base), "tuned": asdict(found.tuned)})
    made = {one.name: one.sha256 for one in plan.definitions}
    file.add("measured with", {"vectors": vectors_sha256, "definitions": made, "judge": judge, **versions()})
    if plan.data is not None:
        file.add("data", asdict(found.data) if found.data else {"sha256": open_data(plan.data).sha256()})
    for condition in plan.conditions:
        shift = found.shifts[condition.name].as_json()
        file.add("condition", {"name": condition.name, "prompts": condition.sha256, "shift": shift})
    for verdict in found.verdicts:
        file.add("verdict", asdict(verdict))
    file.add("result", {"passed": found.passed, "limits": len(found.verdicts), "notes": list(found.notes)})
    return file.close()


def versions() -> Mapping[str, str]:
    """The libraries that numbers depend on."""
    return {name: version(name) for name in LIBRARIES}
