"""Compares what two configurations said about the same prompts, and gives the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from guardrail.calibration.certificates import Certificate
from guardrail.calibration.values import Calibration
from guardrail.certify.criteria import CHANGED, RANK, Verdict, alike, different, equivalent, fewest
from guardrail.certify.measures import Side, agreement, changes, rates
from guardrail.certify.recalibration import compiled, recalibrated, unrecorded
from guardrail.certify.recording import Recording, columns, compared
from guardrail.certify.results import Comparison, Recalibrated
from guardrail.errors import ConfigError
from guardrail.policy.loading import ActivePolicies
from guardrail.policy.reach import doubts

SLICES = "the calibration keeps its rates on slices that were not compared ({}); record them with --slice"
HIGH = (
    "the reference fires more often than stated on these benign prompts: {}; calibrate on prompts like them"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a certificate counts: days, and the distance that live scores may have from benign ones."""

    max_age_days: float | None = None
    max_drift: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """The comparison, and the calibration to use under the candidate: None if there is none."""

    comparison: Comparison
    calibration: Calibration | None


def certify(
    reference: Recording, candidate: Recording, active: ActivePolicies, limits: Limits = Limits()
) -> Certified:
    """Compare two recordings under these policies. Raises ConfigError for others, and for too few prompts."""
    calibration = _check(reference, candidate, active)
    second = candidate.matched(reference)
    sides = [Side.of(one, active.plan, calibration) for one in (reference, second)]
    found = _compared(reference, second, *sides)
    certificates = _certificates(reference, second, active, limits)
    if found.verdict == "PASS":
        missing = [one for one in certificates if not calibration.certificate(one.configuration)]
        return Certified(comparison=found, calibration=calibration.certified(*missing, certificates[-1]))
    if found.unevaluated or list(_ranks(found)):
        found = replace(found, reasons=(*found.reasons, *_ranks(found)))
        return Certified(comparison=found, calibration=None)
    anew, made = recalibrated(sides[0], sides[1], second, active, certificates[-1])
    found = replace(found, recalibrated=anew)
    if made is None or not anew.kept:
        return Certified(comparison=_failed(found, anew), calibration=None)
    notes = (*found.notes, *_doubts(active, made))
    return Certified(comparison=replace(found, verdict="RECALIBRATE", notes=notes), calibration=made)


def _doubts(active: ActivePolicies, made: Calibration) -> Iterator[str]:
    """The policies that may never reach their new thresholds."""
    for rule in compiled(active, made).rules:
        yield from doubts(rule, made, active.vectors)


def _check(reference: Recording, candidate: Recording, active: ActivePolicies) -> Calibration:
    calibration = active.calibration
    if calibration is None:
        raise ConfigError("the policies have no calibration, so there is nothing to certify")
    known = (active.vectors.sha256, calibration.sha256, columns(active.plan))
    for name, one in (("reference", reference), ("candidate", candidate)):
        if (one.vectors_sha256, one.calibration_sha256, one.columns) != known:
            raise ConfigError(
                f"the {name} was recorded under other policies, vectors or calibration; record it again"
            )
    if calibration.certificates and not calibration.certificate(reference.configuration):
        raise ConfigError(
            f"the reference ({reference.configuration}) is not certified itself; record one of those that "
            "are: " + "; ".join(str(one.configuration) for one in calibration.certificates)
        )
    check_count(int(reference.slices[""].sum()))
    return calibration


def check_count(benign: int) -> None:
    """Raises ConfigError for too few benign prompts to show anything."""
    if benign < fewest():
        raise ConfigError(
            f"{benign} distinct benign prompts are too few: with fewer than {fewest()}, even if no verdict "
            f"changes it is not shown that at most {CHANGED:.0%} would"
        )


def _compared(reference: Recording, candidate: Recording, first: Side, second: Side) -> Comparison:
    benign, everything = reference.benign, np.ones(len(reference.said), bool)
    parts = {"all": everything, "benign": benign, "others": ~benign}
    moved = {
        name: changes(reference.actions[rows], candidate.actions[rows]) if rows.any() else None
        for name, rows in parts.items()
    }
    assert moved["all"] is not None
    assert moved["benign"] is not None
    found = Comparison(
        verdict="FAIL",
        reasons=(),
        reference=reference.configuration,
        candidate=candidate.configuration,
        differences=reference.configuration.differences(candidate.configuration),
        unevaluated=int((reference.evaluated & ~candidate.evaluated).sum()),
        agreement=agreement(reference, candidate),
        all=moved["all"],
        benign=moved["benign"],
        others=moved["others"],
        rates=rates(first, second, reference.slices),
        policies=tuple(rule.id for rule in compared(first.plan)),
        not_compared=_left_out(reference, first),
    )
    reasons = tuple(_reasons(found))
    verdict: Verdict = "FAIL" if reasons else "PASS"
    return replace(found, verdict=verdict, reasons=reasons, notes=tuple(_notes(found, reference, first)))


def _reasons(found: Comparison) -> Iterator[str]:
    """What keeps it from a PASS."""
    if found.unevaluated:
        yield f"{found.unevaluated} prompts were not evaluated under the candidate"
    for name, one in (("prompts", found.all), ("benign prompts", found.benign)):
        if not equivalent(one.share):
            yield (
                f"{one.changed} of {one.n} verdicts on {name} change, which may be up to "
                f"{one.share.high:.2%}; {CHANGED:.0%} may"
            )
    if found.others and different(found.others.share):
        yield (
            f"{found.others.changed} of {found.others.n} verdicts on prompts that are not benign change, at "
            f"least {found.others.share.low:.2%}; {CHANGED:.0%} may"
        )
    for one in found.rates:
        if not one.kept:
            yield f"{one.name}: fires on {one.candidate:.2%} of benign prompts, above what is stated"


def _ranks(found: Comparison) -> Iterator[str]:
    """The traits that new thresholds cannot help."""
    for one in found.agreement:
        if not alike(one.rank):
            yield (
                f"{one.trait} at layer {one.layer} ranks prompts otherwise: a correlation of "
                f"{one.rank:.3f}, below {RANK:g}"
            )


def _failed(found: Comparison, anew: Recalibrated) -> Comparison:
    worse = ", ".join(one.name for one in anew.rates if not one.kept)
    reason = anew.problem or f"new thresholds would not keep the rate of {worse}"
    return replace(found, reasons=(*found.reasons, f"a new calibration does not help: {reason}"))


def _notes(found: Comparison, reference: Recording, side: Side) -> Iterator[str]:
    high = [one.name for one in found.rates if one.stated and one.reference.low > one.stated.high]
    if high:
        yield HIGH.format(", ".join(high))
    if missing := unrecorded(reference, side.calibration):
        yield SLICES.format(", ".join(missing))


def _left_out(reference: Recording, side: Side) -> tuple[str, ...]:
    """The policies that say nothing here: about replies or conversations, of plugins, or without a score."""
    scored = {
        column
        for column, values in zip(reference.columns, reference.scores.T, strict=True)
        if np.isfinite(values).any()
    }
    told = {rule.id for rule in compared(side.plan) if {(c.trait, c.layer) for c in rule.conditions} & scored}
    every = (*side.plan.rules, *side.plan.reply_rules)
    return tuple(rule.id for rule in every if rule.mode != "off" and rule.id not in told)


def _certificates(
    reference: Recording, candidate: Recording, active: ActivePolicies, limits: Limits
) -> tuple[Certificate, Certificate]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    first, second = (
        Certificate(
            configuration=one.configuration,
            created=now,
            prompts=int(reference.benign.sum()),
            policies=tuple(rule.id for rule in compared(active.plan)),
            max_age_days=limits.max_age_days,
            max_drift=limits.max_drift,
        )
        for one in (reference, candidate)
    )
    return first, second
