"""What a policy file is compiled against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from guardrail.calibration import Calibration
from guardrail.types import Fingerprint, Probe, Verdict
from guardrail.vectors import TraitVectors


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionInfo:
    """What compiling needs to know of an action: its place, and how its configuration becomes a verdict.

    `config` is the model that `validate` validates, for suggestions and for the schema of policy files.
    """

    strength: int
    validate: Callable[[Mapping[str, object]], BaseModel]
    compile: Callable[[BaseModel], Verdict]
    config: type[BaseModel] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileInputs:
    """Everything a policy file is checked against."""

    fingerprint: Fingerprint
    vectors: TraitVectors
    calibration: Calibration | None
    actions: Mapping[str, ActionInfo]
    probes: Mapping[str, Probe] = field(default_factory=dict[str, Probe])
    scorers: frozenset[str] = frozenset()
