"""What a rule that is valid should still be told about: at load, and with every decision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from guardrail.calibration.values import Calibration
from guardrail.policy.rates import condition_rate, rule_rate
from guardrail.policy.reach import doubts
from guardrail.policy.rules import Rule
from guardrail.types import ALLOW
from guardrail.vectors.values import TraitVectors

OFTEN = 0.1
"""The share of benign prompts beyond which a threshold is probably a mistake."""
TIMES = 3
"""How many times its own rate a policy may fire on a slice of the calibration without a warning."""


def warnings(rule: Rule, calibration: Calibration | None) -> Iterator[str]:
    """The warnings about a rule, each beginning with its policy's id."""
    if rule.fails_open:
        yield f"{rule.id}: fails open: {', '.join(open_keys(rule))}"
    if rule.mode == "enforce" and rule.settings.on_truncate == "score_tail":
        yield f"{rule.id}: only the end of an overlong prompt is evaluated"
    if rule.mode == "enforce" and (calibration is None or _unknown(rule, calibration)):
        yield f"{rule.id}: enforced without a calibration; its false-positive rate is unknown"
    if rule.mode != "off":
        yield from _too_often(rule, calibration)
        yield from _on_slices(rule, calibration)


def about_vectors(rule: Rule, vectors: TraitVectors, calibration: Calibration | None) -> Iterator[str]:
    """The warnings about what the rule reads: vectors that are unsteady, a threshold that is out of reach."""
    if rule.mode != "off":
        yield from _unsteady(rule, vectors)
        yield from doubts(rule, calibration, vectors)


def _unsteady(rule: Rule, vectors: TraitVectors) -> Iterator[str]:
    """Vectors that the rule reads or adds, and that depend on the questions they were made from."""
    for trait, layers in _used(rule).items():
        source = vectors.provenance.traits.get(trait)
        if source and (stability := source.stability):
            worst = min(layers, key=stability.split_half.__getitem__)
            if text := stability.unsteady(worst):
                yield f"{rule.id}: the vector of `{trait}` is unsteady: {text}"


def _used(rule: Rule) -> Mapping[str, set[int]]:
    """The layers by trait."""
    used: defaultdict[str, set[int]] = defaultdict(set)
    for condition in rule.conditions:
        if condition.layer is not None:
            used[condition.trait].add(condition.layer)
    if rule.steering is not None:
        used[rule.steering.trait].update(rule.steering.layers)
    return used


def open_keys(rule: Rule) -> list[str]:
    """The keys that let a prompt pass if something goes wrong."""
    settings = rule.settings
    keys = {
        "on_error": settings.on_error,
        "on_timeout": rule.on_timeout,
        "unsupported_input": settings.unsupported_input,
        "on_model_change": settings.on_model_change,
        "otherwise": rule.otherwise,
    }
    found = [f"`{name}: allow`" for name, value in keys.items() if value == ALLOW]
    return found + (["`on_stale: shadow`"] if settings.on_stale == "shadow" else [])


def _unknown(rule: Rule, calibration: Calibration) -> bool:
    """Whether a policy about replies or conversations lacks a calibration for one of its conditions."""
    follows = rule.monitor is not None or any(c.drift for c in rule.conditions)
    return follows and any(c.layer not in calibration.replies.get(c.trait, {}) for c in rule.conditions)


def _too_often(rule: Rule, calibration: Calibration | None) -> Iterator[str]:
    """Thresholds that fire on many benign prompts. Rates, and conditions of `all_of`, are not looked at."""
    if rule.require_all and len(rule.conditions) > 1:
        return
    for condition in rule.conditions:
        rate = condition_rate(condition, calibration, rule.monitor)
        if rate is not None and condition.fpr is None and rate.value > OFTEN:
            benign = (
                f"{rate.value:.0%} of the calibration's benign {'replies' if rule.monitor else 'prompts'}"
            )
            hint = "a number is a score, {fpr: 0.01} a rate"
            yield f"{rule.id}: the threshold of `{condition.trait}` fires on {benign}; {hint}"


def _on_slices(rule: Rule, calibration: Calibration | None) -> Iterator[str]:
    """Slices with more than three times the rule's rate. Not where chance explains it: the intervals meet."""
    usual = rule_rate(rule, calibration)
    for name in calibration.slices if calibration and usual else ():
        found = rule_rate(rule, calibration, name)
        if usual and found and found.value > TIMES * usual.value and found.low > usual.high:
            there = f"{found:.1%} of the slice `{name}`"
            yield (
                f"{rule.id}: fires on {there}, more than {TIMES} times its rate of {usual.value:.2%}; "
                "`guardrail calibrate --worst-slice` keeps the rate on every slice"
            )
