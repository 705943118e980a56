"""Persona CI: whether a finetune kept its base's character and abilities, by a policy file."""

from guardrail.train.gate.evidence import EvidenceFile, Sealed, record
from guardrail.train.gate.gate import GateResult, PersonaGate
from guardrail.train.gate.loading import PersonaFile, load, schema
from guardrail.train.gate.plan import GatePlan
from guardrail.train.gate.policy import PersonaPolicy
from guardrail.train.gate.verdicts import Verdict

__all__ = [
    "EvidenceFile",
    "GatePlan",
    "GateResult",
    "PersonaFile",
    "PersonaGate",
    "PersonaPolicy",
    "Sealed",
    "Verdict",
    "load",
    "record",
    "schema",
]
