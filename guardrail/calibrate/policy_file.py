"""A policy file to calibrate: read without its calibration, compiled with a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from guardrail.calibration.values import Calibration
from guardrail.errors import ConfigError
from guardrail.files.yaml import Document, read_document
from guardrail.plugins.manager import Plugins
from guardrail.plugins.packs import is_reference, referred
from guardrail.policy.compiler import Compiler
from guardrail.policy.conditions import CompileInputs
from guardrail.policy.file import draft
from guardrail.policy.loading import located, resolve_vectors
from guardrail.policy.model import PolicySet
from guardrail.policy.plan import Plan
from guardrail.types import Fingerprint, Probe
from guardrail.vectors.values import TraitVectors


@dataclass(frozen=True, slots=True, eq=False)
class PolicyFile:
    """A valid policy file and the places of its keys."""

    document: Document
    policies: PolicySet
    plugins: Plugins

    @classmethod
    def read(cls, path: str | Path, plugins: Plugins) -> PolicyFile:
        """Read the file. Raises PolicyError with all problems, and PluginError."""
        place = located(path)
        if is_reference(str(place)):
            raise ConfigError(
                f"{place}: name the pack as well, as in `pack:PACK/{str(place).partition(':')[2]}`"
            )
        document = read_document(Path(str(place)))
        found = draft(document)
        if found.problems or found.policies is None:
            raise document.error(list(found.problems))
        return cls(document, found.policies, plugins.enabled(found.policies.plugins))

    @property
    def vectors(self) -> Path:
        """The vector file that it refers to."""
        return resolve_vectors(self.policies.vectors, self.document.path and self.document.path.parent)

    def probes(self, fingerprint: Fingerprint) -> Mapping[str, Probe]:
        """The probes that its plugins add."""
        return self.plugins.probes(fingerprint)

    def _inputs(self, vectors: TraitVectors, calibration: Calibration) -> CompileInputs:
        return CompileInputs(
            fingerprint=calibration.fingerprint,
            vectors=vectors,
            calibration=calibration,
            actions=self.plugins.action_infos(),
            probes=self.probes(calibration.fingerprint),
            scorers=frozenset(self.plugins.scorers),
            certified=self._certified(calibration.fingerprint),
        )

    def compile(self, policies: PolicySet, vectors: TraitVectors, calibration: Calibration) -> Plan:
        """The plan of these policies with a calibration. Raises PolicyError, with places in the file."""
        compiler = Compiler(policies, self._inputs(vectors, calibration))
        plan = compiler.compile()
        if compiler.problems:
            raise self.document.error(compiler.problems)
        return plan

    def _certified(self, fingerprint: Fingerprint) -> Mapping[str, str]:
        """Vectors of a pack may be used with other weights of its model, with a warning."""
        name = self.policies.vectors
        return {"vectors": referred(name, fingerprint).other_weights()} if is_reference(name) else {}
