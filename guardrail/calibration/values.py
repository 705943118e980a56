"""The calibration file: benign statistics for one model and vector file, as versioned JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from guardrail.calibration.benign import Benign, BenignReplies
from guardrail.calibration.certificates import Certificate
from guardrail.calibration.evidence import Evidence
from guardrail.calibration.slices import Populations, Slice
from guardrail.errors import CalibrationError
from guardrail.files import json_text
from guardrail.files.whole import write_whole
from guardrail.types import Configuration, Fingerprint

FORMAT = "guardrail-calibration"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A calibration file. `probes` and `steering` map trait and layer to benign statistics.

    `probes` are projections of the last prompt tokens on the probes. `steering` are those of prompt and
    reply tokens on the unit steering vectors, which `cap` limits. `replies` calibrates policies about replies
    and may be missing. `slices` are known by name.
    """

    fingerprint: Fingerprint
    vectors_sha256: str
    population: str
    created: str
    probes: Mapping[str, Mapping[int, Benign]] = field(repr=False)
    steering: Mapping[str, Mapping[int, Benign]] = field(repr=False)
    replies: Mapping[str, Mapping[int, BenignReplies]] = field(
        default_factory=dict[str, Mapping[int, BenignReplies]], repr=False
    )
    evidence: Evidence | None = None
    """None in files from older versions and in files made without `guardrail calibrate`."""
    slices: Mapping[str, Slice] = field(default_factory=dict[str, Slice], repr=False)
    worst_slice: bool = False
    """Whether thresholds that are rates or percentiles hold for every slice as well."""
    certificates: tuple[Certificate, ...] = ()
    """The configurations that it holds for. Nothing is known if there are none, as in older files."""

    def certificate(self, running: Configuration) -> Certificate | None:
        """The certificate for this configuration."""
        return next((one for one in self.certificates if one.configuration == running), None)

    def certified(self, *new: Certificate) -> Self:
        """The same calibration with these certificates, which replace older ones of their configurations."""
        renewed = [one.configuration for one in new]
        kept = [one for one in self.certificates if one.configuration not in renewed]
        return replace(self, certificates=(*kept, *new))

    def populations(self, trait: str, layer: int) -> Populations | None:
        """What thresholds of a trait at a layer must hold for. None if the calibration lacks them."""
        benign = self.probes.get(trait, {}).get(layer)
        if benign is None:
            return None
        binding = self.slices if self.worst_slice else {}
        found = {name: one.probes.get(trait, {}).get(layer) for name, one in binding.items()}
        return Populations(benign, {name: own for name, own in found.items() if own is not None})

    def drifted(self, distance: float) -> Self:
        """The same calibration, with certificates that say how far live scores are from it now."""
        return self.certified(*(replace(one, drift=distance) for one in self.certificates))

    @cached_property
    def sha256(self) -> str:
        """Identifies what thresholds and scores come from; every decision carries it.

        Certificates are evidence about that, so a new one makes no other calibration.
        """
        return hashlib.sha256(replace(self, certificates=())._json().encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write versioned JSON."""
        write_whole(path, f"{self._json()}\n".encode())

    def _json(self) -> str:
        content = {"format": FORMAT, "version": FORMAT_VERSION, **_fields(self)}
        for name in ("replies", "evidence", "slices", "worst_slice", "certificates"):
            # so that the hash of a file from before these keys existed stays the same
            if not getattr(self, name):
                del content[name]
        return json.dumps(content, sort_keys=True, default=_fields)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file written by `save`. Raises CalibrationError for anything else."""
        try:
            content = json_text.read(Path(path))
            if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
                raise CalibrationError("not a guardrail calibration")
            if (version := content.pop("version", None)) != FORMAT_VERSION:
                raise CalibrationError(f"version {version!r} is not supported; supported: {FORMAT_VERSION}")
            return json_text.validated(cls, content)
        except (CalibrationError, ValueError) as error:
            raise CalibrationError(f"{path}: {error}") from error


def _fields(value: Any) -> dict[str, object]:
    """The fields of a dataclass as they are; `asdict` would copy every number of a large file."""
    return {one.name: getattr(value, one.name) for one in fields(value)}
