"""Makes the calibration that a configuration needs from its own scores, and tests it on prompts left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256

import numpy as np

from guardrail.calibrate.projections import Projections
from guardrail.calibration.benign import Benign
from guardrail.calibration.certificates import Certificate
from guardrail.calibration.evidence import Achieved, Evidence
from guardrail.calibration.slices import Slice
from guardrail.calibration.values import Calibration
from guardrail.certify.measures import Rows, Side, changes, rates
from guardrail.certify.recording import Recording
from guardrail.certify.results import RateCheck, Recalibrated
from guardrail.errors import CalibrationError, PolicyError
from guardrail.policy.compiler import Compiler
from guardrail.policy.conditions import CompileInputs
from guardrail.policy.loading import ActivePolicies
from guardrail.policy.plan import Plan

SEED = 0
UNRECORDED = "the calibration keeps its rates on slices that were not recorded ({}); record them with --slice"


def recalibrated(
    reference: Side, candidate: Side, recording: Recording, active: ActivePolicies, certificate: Certificate
) -> tuple[Recalibrated, Calibration | None]:
    """What new thresholds achieve, and the calibration that gives them; None if there are too few prompts.

    A random half of the benign prompts sets the thresholds, the other half tests them; so does half of each
    slice if the reference's calibration keeps its rates on slices.
    """
    parts = {name: _part(recording, name, reference.calibration) for name in recording.slices}
    result = Recalibrated(
        calibrated=sum(len(part.setting) for part in parts.values()),
        tested=sum(len(part.tested) for part in parts.values()),
    )
    if missing := unrecorded(recording, reference.calibration):
        return replace(result, problem=UNRECORDED.format(", ".join(missing))), None
    try:
        made = _calibration(candidate, parts, recording, reference.calibration, certificate)
        renewed = replace(candidate, plan=compiled(active, made), calibration=made)
    except (CalibrationError, PolicyError) as error:
        return replace(result, problem=str(error)), None
    found = rates(reference, renewed, {name: part.tested for name, part in parts.items()})
    setting = np.concatenate([part.setting for part in parts.values()])
    left = np.setdiff1d(np.arange(len(recording.said)), setting)
    moved = changes(reference.rows(left).actions(), renewed.rows(left).actions())
    return replace(result, rates=found, changes=moved), _with_evidence(made, found)


def unrecorded(recording: Recording, calibration: Calibration) -> list[str]:
    """The slices that the calibration keeps its rates on, and that were not recorded."""
    binding = calibration.slices if calibration.worst_slice else {}
    return [name for name in binding if name not in recording.slices]


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of the benign sample or of a slice: those that set thresholds, and those that test them."""

    setting: Rows
    tested: Rows


def _part(recording: Recording, name: str, calibration: Calibration) -> _Part:
    """The draw does not depend on the order of the files. A slice that sets no threshold tests whole."""
    rows = [i for i in np.argsort(recording.keys) if recording.slices[name][i]]
    order = np.random.default_rng(SEED).permutation(np.array(rows, np.intp))
    half = len(order) // 2 if not name or calibration.worst_slice else 0
    return _Part(order[:half], order[half:])


def compiled(active: ActivePolicies, calibration: Calibration) -> Plan:
    """The policies under another calibration. Raises PolicyError for what does not fit it."""
    fingerprint, plugins = calibration.fingerprint, active.plugins
    inputs = CompileInputs(
        fingerprint=fingerprint,
        vectors=active.vectors,
        calibration=calibration,
        actions=plugins.action_infos(),
        probes=plugins.probes(fingerprint),
        scorers=frozenset(plugins.scorers),
    )
    # that these vectors may be used here was decided when the guard was made
    compiler = Compiler(active.policies.model_copy(update={"allow_model_mismatch": True}), inputs)
    plan = compiler.compile()
    if compiler.problems:
        raise PolicyError(compiler.problems, "under the new calibration")
    return plan


def _calibration(
    side: Side,
    parts: Mapping[str, _Part],
    recording: Recording,
    old: Calibration,
    certificate: Certificate,
) -> Calibration:
    sample = parts[""]
    return replace(
        old,
        fingerprint=recording.fingerprint,
        population=f"{old.population}; made anew by `guardrail certify` from other prompts",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        probes=_table(side.rows(sample.setting).projections),
        slices={name: _slice(side, name, part, recording, old) for name, part in parts.items() if name},
        certificates=(replace(certificate, prompts=sum(len(part.setting) for part in parts.values())),),
        evidence=Evidence(
            source_sha256=_sha256(recording, sample),
            prompts=len(sample.setting) + len(sample.tested),
            duplicates=0,
            skipped=0,
            calibrated=len(sample.setting),
            held_out=len(sample.tested),
            seed=SEED,
            conversations=old.evidence.conversations if old.evidence else 0,
            tokens=old.evidence.tokens if old.evidence else 0,
        ),
    )


def _slice(side: Side, name: str, part: _Part, recording: Recording, old: Calibration) -> Slice:
    behind = part.setting if old.worst_slice else part.tested
    try:
        probes = _table(side.rows(behind).projections.readable())
    except CalibrationError as error:
        raise CalibrationError(f"slice `{name}`: {error}") from error
    return Slice(
        source=old.slices[name].source if name in old.slices else name,
        source_sha256=_sha256(recording, part),
        prompts=len(part.setting) + len(part.tested),
        duplicates=0,
        skipped=0,
        probes=probes,
    )


def _sha256(recording: Recording, part: _Part) -> str:
    keys = sorted(recording.keys[i] for i in (*part.setting, *part.tested))
    return sha256("".join(keys).encode()).hexdigest()


def _table(projections: Projections) -> dict[str, dict[int, Benign]]:
    table: dict[str, dict[int, Benign]] = {}
    for trait, layer in projections.columns:
        values = projections.of(trait, layer)
        table.setdefault(trait, {})[layer] = Benign.of(values[np.isfinite(values)])
    return table


def _with_evidence(made: Calibration, found: Sequence[RateCheck]) -> Calibration:
    assert made.evidence is not None
    achieved = {
        name: tuple(_achieved(one) for one in found if one.slice == name) for name in ("", *made.slices)
    }
    slices = {name: replace(one, achieved=achieved[name]) for name, one in made.slices.items()}
    return replace(made, evidence=replace(made.evidence, achieved=achieved[""]), slices=slices)


def _achieved(one: RateCheck) -> Achieved:
    return Achieved(
        kind="policy" if one.policy else "set",
        name=one.policy,
        fpr=None,
        n=one.n,
        fired=round(one.candidate.value * one.n),
        low=one.candidate.low,
        high=one.candidate.high,
    )
