"""The gate: measures a finetune against its base under a persona policy, and says which limits hold.

The base is observed first and let go, then the finetune is loaded, so that one model is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from guardrail.errors import ConfigError
from guardrail.extract.journal import Report, silent
from guardrail.extract.judges.scores import coherence_scores, trait_scores
from guardrail.extract.subject import Subject
from guardrail.plugins.protocols import Judge
from guardrail.statistics.intervals import Estimate, mean, paired_difference
from guardrail.train.gate.conditions import PLAIN
from guardrail.train.gate.measured import Measured
from guardrail.train.gate.observing import Observation, scored
from guardrail.train.gate.plan import NO_DATA, GatePlan
from guardrail.train.gate.policy import Change, ShiftChange
from guardrail.train.gate.screening import DataFindings, screened
from guardrail.train.gate.verdicts import Verdict, at_most, score_change, verdicts
from guardrail.train.shift import Shift, ShiftMeter
from guardrail.train.shift.descent import Ancestor
from guardrail.train.shift.mixing import Mixing
from guardrail.train.shift.results import Descent, TraitShift
from guardrail.traits import TraitDefinition
from guardrail.types import Fingerprint
from guardrail.vectors.values import TraitVectors

DATA = "training data"
MEASURED = "measured.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """All verdicts, and what they rest on. `passed`: every limit was shown to hold.

    `names`: what the user calls the base and the finetune.
    """

    names: tuple[str, str]
    verdicts: Sequence[Verdict]
    shifts: Mapping[str, Shift]
    base: Fingerprint
    tuned: Fingerprint
    data: DataFindings | None
    notes: Sequence[str]

    @property
    def passed(self) -> bool:
        """Whether every limit was shown to hold."""
        return bool(self.verdicts) and all(one.passed for one in self.verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """What is kept of the base."""

    ancestor: Ancestor
    meters: Mapping[str, ShiftMeter]
    observed: Observation
    data: DataFindings | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonaGate:
    """A plan with what carries it out. others: definitions that only tell how traits drag each other along.

    judge: None if the policy limits no score. work: the folder that keeps what was measured, so that a gate
    that was interrupted goes on. Raises ConfigError if a judge is needed and missing.
    """

    plan: GatePlan
    vectors: TraitVectors
    judge: Judge | None
    work: Path
    others: Sequence[TraitDefinition] = ()
    report: Report = field(default=silent)

    def __post_init__(self) -> None:
        if self.judge is None and (judged := self.plan.policy.judged):
            raise ConfigError(f"the policy limits judged scores of {', '.join(judged)}: give a judge")

    def run(
        self, base: Callable[[], Subject], tuned: Callable[[Ancestor], Subject], names: tuple[str, str]
    ) -> GateResult:
        """Measure both models, which are loaded one after the other. names: what the user calls them.

        Raises VectorError if the base is not the vectors' model, ModelError if `tuned` is no finetune of it.
        """
        measured = Measured(self.work / MEASURED)
        before = self._base(base(), names[0], measured)
        model = tuned(before.ancestor)
        shifts = {name: meter.measure(model, names[1]) for name, meter in before.meters.items()}
        descent = before.ancestor.descent(model, names[1])
        observed = self.plan.observer.observe(model, measured, names[1], self.report)
        return GateResult(
            names=names,
            verdicts=[*_of_weights(descent), *self._verdicts(shifts, before, observed)],
            shifts=shifts,
            base=before.ancestor.fingerprint,
            tuned=model.fingerprint,
            data=before.data,
            notes=[
                *self.plan.notes,
                *(before.data.notes if before.data else ()),
                *descent.notes,
                *_of_earlier(measured),
            ],
        )

    def _base(self, base: Subject, name: str, measured: Measured) -> _Base:
        ancestor = Ancestor.of(base, name)
        ancestor.check_vectors(self.vectors)
        meters = self._meters(base, name, measured)
        observed = self.plan.observer.observe(base, measured, name, self.report)
        return _Base(ancestor=ancestor, meters=meters, observed=observed, data=self._screened(base))

    def _meters(self, base: Subject, name: str, measured: Measured) -> dict[str, ShiftMeter]:
        """By condition; what traits do to each other is asked once."""
        found: dict[str, ShiftMeter] = {}
        mixing: Mixing | None = None
        for condition in self.plan.conditions:
            meter = ShiftMeter(
                base,
                self.vectors,
                condition.conversations,
                definitions=[*self.plan.definitions, *self.others],
                name=name,
                mixing=mixing,
                report=self.report,
                project=measured.projected,
            )
            found[condition.name], mixing = meter, meter.mixing
        return found

    def _screened(self, base: Subject) -> DataFindings | None:
        limits, clean = self.plan.policy.data, self.plan.file.file("data", "clean")
        if limits is None or clean is None or self.plan.data is None:
            return None
        traits = list(self.plan.policy.traits)
        return screened(base, self.vectors, traits, self.plan.data, clean, limits, self.work, self.report)

    # --- verdicts -----------------------------------------------------------------------------------

    def _verdicts(self, shifts: Mapping[str, Shift], before: _Base, after: Observation) -> Iterator[Verdict]:
        yield from self._of_data(before.data)
        yield from self._of_shifts(shifts)
        yield from self._of_replies(before.observed, after)
        yield from self._of_abilities(before.observed, after)
        for condition, why in self.plan.missing:
            for what, change, unit in self._limits():
                yield from verdicts(what, condition, change, None, unit, why)

    def _limits(self) -> Iterator[tuple[str, Change, str]]:
        for trait, limits in self.plan.policy.traits.items():
            if limits.shift:
                yield _named(trait, limits.shift), limits.shift, "SDs"
            if limits.score:
                yield f"{trait}: score", limits.score, "points"

    def _of_data(self, found: DataFindings | None) -> Iterator[Verdict]:
        limits = self.plan.policy.data
        for trait in self.plan.policy.traits if limits else ():
            assert limits is not None
            share = found.above[trait] if found else None
            why = "" if found else NO_DATA
            yield at_most(f"{trait}: rows above the clean threshold", DATA, limits.max_above, share, why)

    def _of_shifts(self, shifts: Mapping[str, Shift]) -> Iterator[Verdict]:
        for name, shift in shifts.items():
            for trait, limits in self.plan.policy.traits.items():
                if limits.shift:
                    found, why = _deviations(shift.traits[trait], limits.shift)
                    yield from verdicts(_named(trait, limits.shift), name, limits.shift, found, "SDs", why)

    def _of_replies(self, before: Observation, after: Observation) -> Iterator[Verdict]:
        judge = self.judge
        for condition in self.plan.conditions if judge else ():
            assert judge is not None
            for definition in self.plan.definitions:
                trait, limits = definition.name, self.plan.policy.traits[definition.name]
                if limits.score is None:
                    continue
                asked, score = condition.prompts[trait], partial(trait_scores, judge, definition)
                pair = [scored(asked, one.replies[condition.name][trait], score) for one in (before, after)]
                found = score_change(*pair)
                why = "" if found else "too few replies could be judged"
                yield from verdicts(f"{trait}: score", condition.name, limits.score, found, "points", why)
            if condition.name == PLAIN:
                yield from self._of_coherence(judge, before, after)

    def _of_coherence(self, judge: Judge, before: Observation, after: Observation) -> Iterator[Verdict]:
        limit, plain = self.plan.policy.coherence, self.plan.conditions[0]
        if limit is None:
            return
        traits, score = self.plan.policy.judged, partial(coherence_scores, judge)

        def rows(one: Observation) -> list[Sequence[float | None]]:
            said = (scored(plain.prompts[trait], one.replies[PLAIN][trait], score) for trait in traits)
            return [row for part in said for row in part]

        found, change = score_change(rows(before), rows(after)), Change(max_fall=limit.max_fall)
        why = "" if found else "too few replies could be judged"
        yield from verdicts("coherence", PLAIN, change, found, "points", why)

    def _of_abilities(self, before: Observation, after: Observation) -> Iterator[Verdict]:
        policy = self.plan.policy
        if policy.capability and before.right and after.right:
            found = paired_difference(before.right, after.right)
            change = Change(max_fall=policy.capability.max_fall)
            yield from verdicts("capability", f"{len(before.right)} questions", change, found, "of 1")
        if policy.held_out_loss and before.losses is not None and after.losses is not None:
            risen = after.losses - before.losses
            found = mean(risen) if np.isfinite(risen).all() else None
            change = Change(max_rise=policy.held_out_loss.max_rise)
            yield from verdicts("held-out loss", f"{len(risen)} replies", change, found, "nats")


def _of_earlier(measured: Measured) -> list[str]:
    if not measured.kept:
        return []
    return [
        f"{measured.kept} of {measured.asked} measurements are those of an earlier run, from {measured.path}"
    ]


def _of_weights(descent: Descent) -> Iterator[Verdict]:
    """A verdict on a finetune that is none: what was meant to be measured is somewhere else."""
    if descent.kind == "same weights":
        yield Verdict(
            what="finetune",
            condition="weights",
            limit="differs from the base",
            found=None,
            outcome="not measured",
            why=descent.notes[-1],
        )


def _named(trait: str, limit: ShiftChange) -> str:
    return f"{trait}: own shift" if limit.part == "own" else f"{trait}: shift"


def _deviations(one: TraitShift, limit: ShiftChange) -> tuple[Estimate | None, str]:
    """The shift in standard deviations of the base, or why there is none."""
    at = one.chosen
    found = at.own if limit.part == "own" else at.shift
    if found is None:
        return None, "the traits cannot be separated at this layer"
    if at.spread == 0:
        return None, "the base does not vary over these prompts"
    return Estimate(*(value / at.spread for value in (found.value, found.low, found.high))), ""
