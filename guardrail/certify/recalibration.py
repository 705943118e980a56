"""Makes the calibration that a configuration needs from its own scores, and tests it on prompts left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from guardrail.calibrate.projections import Projections
from guardrail.calibration.benign import Benign
from guardrail.calibration.certificates import Certificate
from guardrail.calibration.evidence import Achieved, Evidence
from guardrail.calibration.values import Calibration
from guardrail.certify.measures import Side, changes, rates
from guardrail.certify.recording import Recording
from guardrail.certify.results import RateCheck, Recalibrated
from guardrail.errors import CalibrationError, PolicyError
from guardrail.policy.compiler import Compiler
from guardrail.policy.conditions import CompileInputs
from guardrail.policy.loading import ActivePolicies
from guardrail.policy.plan import Plan

SEED = 0


def recalibrated(
    reference: Side, candidate: Side, recording: Recording, active: ActivePolicies, certificate: Certificate
) -> tuple[Recalibrated, Calibration | None]:
    """What new thresholds achieve, and the calibration that gives them; None if there are too few prompts.

    A random half of the benign prompts sets the thresholds, the other half tests them.
    """
    own, tested = halves(recording)
    result = Recalibrated(calibrated=len(own), tested=len(tested))
    try:
        made = _calibration(candidate.rows(own), recording, reference.calibration, certificate, result)
        renewed = replace(candidate, plan=compiled(active, made), calibration=made)
    except (CalibrationError, PolicyError) as error:
        return replace(result, problem=str(error)), None
    found = rates(reference.rows(tested), renewed.rows(tested))
    left = np.setdiff1d(np.arange(len(recording.said)), own)
    moved = changes(reference.rows(left).actions(), renewed.rows(left).actions())
    return replace(result, rates=found, changes=moved), _with_evidence(made, found, len(tested))


def halves(recording: Recording) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Two disjoint halves of the benign prompts. The draw does not depend on the order of the files."""
    benign = [i for i in np.argsort(recording.keys) if recording.benign[i]]
    order = np.random.default_rng(SEED).permutation(benign)
    return order[: len(order) // 2], order[len(order) // 2 :]


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
    side: Side, recording: Recording, old: Calibration, certificate: Certificate, counts: Recalibrated
) -> Calibration:
    return replace(
        old,
        fingerprint=recording.fingerprint,
        population=f"{old.population}; made anew by `guardrail certify` from other prompts",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        probes=_table(side.projections),
        slices={},
        worst_slice=False,
        certificates=(replace(certificate, prompts=counts.calibrated),),
        evidence=Evidence(
            source_sha256=sha256("".join(sorted(recording.keys)).encode()).hexdigest(),
            prompts=counts.calibrated + counts.tested,
            duplicates=0,
            skipped=0,
            calibrated=counts.calibrated,
            held_out=counts.tested,
            seed=SEED,
            conversations=old.evidence.conversations if old.evidence else 0,
            tokens=old.evidence.tokens if old.evidence else 0,
        ),
    )


def _table(projections: Projections) -> dict[str, dict[int, Benign]]:
    table: dict[str, dict[int, Benign]] = {}
    for trait, layer in projections.columns:
        values = projections.of(trait, layer)
        table.setdefault(trait, {})[layer] = Benign.of(values[np.isfinite(values)])
    return table


def _with_evidence(made: Calibration, found: Sequence[RateCheck], n: int) -> Calibration:
    assert made.evidence is not None
    return replace(made, evidence=replace(made.evidence, achieved=tuple(_achieved(one, n) for one in found)))


def _achieved(one: RateCheck, n: int) -> Achieved:
    return Achieved(
        kind="policy" if one.policy else "set",
        name=one.policy,
        fpr=None,
        n=n,
        fired=round(one.candidate.value * n),
        low=one.candidate.low,
        high=one.candidate.high,
    )
