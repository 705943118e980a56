"""Measures two recordings against each other: scores by trait, verdicts, and rates on benign prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from guardrail.calibrate.achieved import rule_fired
from guardrail.calibrate.projections import Projections
from guardrail.calibration.values import Calibration
from guardrail.certify.criteria import kept
from guardrail.certify.recording import Recording, compared
from guardrail.certify.results import Agreement, Changes, RateCheck
from guardrail.policy.plan import Plan
from guardrail.policy.rates import Rate, rule_rate, set_rate
from guardrail.statistics.correlation import spearman
from guardrail.statistics.intervals import Numbers, bootstrap, rate
from guardrail.types import ALLOW

SCALE = (("mean", 0.0), ("sd", 1.0))
Rows = NDArray[np.bool_] | NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One configuration: its projections [prompts, columns], and a plan compiled with a calibration."""

    plan: Plan
    calibration: Calibration
    projections: Projections = field(repr=False)

    @classmethod
    def of(cls, recording: Recording, plan: Plan, calibration: Calibration) -> Side:
        """The side of a recording, whose scores are those of this calibration, or else projections."""
        known = [calibration.probes.get(trait, {}).get(layer) for trait, layer in recording.columns]
        mean, sd = (np.array([getattr(one, name, plain) for one in known]) for name, plain in SCALE)
        values = (recording.scores * sd + mean).astype(np.float32)
        return cls(plan=plan, calibration=calibration, projections=Projections(recording.columns, values))

    def rows(self, chosen: Rows) -> Side:
        """The same with some of the prompts."""
        values = self.projections.values[chosen]
        return replace(self, projections=Projections(self.projections.columns, values))

    def fired(self) -> dict[str, NDArray[np.bool_]]:
        """[prompts] for each policy, and under the empty name for all that are enforced (all, if none is)."""
        rules = compared(self.plan)
        found = {rule.id: rule_fired(rule, self.projections) for rule in rules}
        enforced = [rule.id for rule in rules if rule.mode == "enforce"] or list(found)
        return found | {"": np.any([found[name] for name in enforced], axis=0)}

    def actions(self) -> NDArray[np.str_]:
        """[prompts]: the strongest action among the policies that fire, as if shadows were enforced."""
        fired, strengths = self.fired(), self.plan.strengths
        found = np.full(len(self.projections.values), ALLOW, object)
        for rule in sorted(compared(self.plan), key=lambda rule: strengths.get(rule.action, 0)):
            found[fired[rule.id]] = rule.action
        return found.astype(str)

    def stated(self, slice: str = "") -> dict[str, Rate | None]:
        """The rates that the calibration gives, by policy, and for all that are enforced.

        Those of a slice are unknown if the calibration does not have it.
        """
        rules = compared(self.plan)
        if slice and slice not in self.calibration.slices:
            return dict.fromkeys([*(rule.id for rule in rules), ""])
        prompts = replace(self.plan, rules=rules, reply_rules=())
        rates = {rule.id: rule_rate(rule, self.calibration, slice or None) for rule in rules}
        some = any(rule.mode == "enforce" for rule in rules)
        return rates | {"": set_rate(prompts, self.calibration, slice or None) if some else None}


def agreement(reference: Recording, candidate: Recording) -> tuple[Agreement, ...]:
    """Of each trait and layer, over the prompts that both have scored."""
    found: list[Agreement] = []
    for i, (trait, layer) in enumerate(reference.columns):
        pairs = np.stack([reference.scores[:, i], candidate.scores[:, i]], axis=1)
        if len(both := pairs[np.isfinite(pairs).all(axis=1)]) > 1:
            found.append(_agreement(trait, layer, both))
    return tuple(found)


def _agreement(trait: str, layer: int, pairs: Numbers) -> Agreement:
    return Agreement(
        trait=trait,
        layer=layer,
        n=len(pairs),
        slope=bootstrap(_slope, pairs),
        offset=bootstrap(_offset, pairs),
        rank=bootstrap(_rank, pairs),
        largest=float(np.abs(pairs[:, 1] - pairs[:, 0]).max()),
    )


def _slope(pairs: Numbers) -> float:
    """Least squares of the candidate on the reference."""
    x, y = pairs.T - pairs.mean(axis=0)[:, None]
    return float(x @ y / (x @ x)) if x.any() else 0.0


def _offset(pairs: Numbers) -> float:
    x, y = pairs.mean(axis=0)
    return float(y - _slope(pairs) * x)


def _rank(pairs: Numbers) -> float:
    """Spearman's correlation; 0 if one side is constant."""
    return spearman(pairs[:, 0], pairs[:, 1]) or 0.0


def changes(before: Sequence[str] | NDArray[np.str_], after: Sequence[str] | NDArray[np.str_]) -> Changes:
    """The share of verdicts that change, with the Clopper-Pearson interval."""
    changed = np.asarray(before) != np.asarray(after)
    return Changes(n=len(changed), changed=int(changed.sum()), share=rate(changed))


def rates(reference: Side, candidate: Side, parts: Mapping[str, Rows]) -> tuple[RateCheck, ...]:
    """How often each policy fires, and the set, on the benign sample and on slices; parts: their rows.

    The rates to keep are those that the reference's calibration states.
    """
    return tuple(
        check
        for slice, rows in parts.items()
        for check in _rates(reference.rows(rows), candidate.rows(rows), slice)
    )


def _rates(reference: Side, candidate: Side, slice: str) -> Iterator[RateCheck]:
    before, after, stated = reference.fired(), candidate.fired(), reference.stated(slice)
    for name in after:
        first, second = rate(before[name]), rate(after[name])
        yield RateCheck(
            policy=name,
            stated=stated[name],
            reference=first,
            candidate=second,
            kept=kept(second, first, stated[name]),
            n=len(before[name]),
            slice=slice,
        )
