"""The plan: a policy file compiled for one model. Pure data: probes, thresholds, conditions, steering.

Benign mean and scale are folded into the probes, so that a reading is already a score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from guardrail.calibration.certificates import Certificate
from guardrail.policy.alarms import Drift
from guardrail.policy.model import Fires
from guardrail.policy.rules import Live, Rule, Screen
from guardrail.policy.terms import Terms, terms_at
from guardrail.types import Facts, Position, Probe

STRENGTHS: Mapping[str, int] = {"allow": 0, "steer": 10, "rephrase": 20, "escalate": 30, "block": 40}
"""The strength of the built-in actions, from weak to strong. Plugins may choose values in between."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the engine reads and how to decide on it. Immutable; running requests keep their plan.

    `rules` decide on prompts, `reply_rules` on replies. `reply_probes` are read at every generated token: one
    per condition of a reply rule, then one per rule about conversations.
    """

    probes: tuple[Probe, ...] = field(repr=False)
    rules: tuple[Rule, ...]
    strengths: Mapping[str, int] = field(default_factory=lambda: dict(STRENGTHS))
    policy_sha256: str = ""
    vectors_sha256: str = ""
    calibration_sha256: str = ""
    warnings: tuple[str, ...] = ()
    reply_rules: tuple[Rule, ...] = ()
    reply_probes: tuple[Probe, ...] = field(default=(), repr=False)
    certificate: Certificate | None = None
    """The calibration's, for how the model is run; None if there is none, which is warned about."""

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The layers that are read before the decision, ascending."""
        return tuple(sorted({site.layer for probe in self.live_probes for site in probe.sites}))

    @cached_property
    def positions(self) -> frozenset[Position]:
        """The positions that are read before the decision."""
        return frozenset(site.position for probe in self.live_probes for site in probe.sites)

    @cached_property
    def live_probes(self) -> tuple[Probe, ...]:
        """The probes that decide on prompts."""
        live = {c.reading for rule in self.rules for c in rule.conditions}
        return tuple(probe for i, probe in enumerate(self.probes) if i in live)

    @cached_property
    def steered_layers(self) -> tuple[int, ...]:
        """The layers that some rule may steer, ascending."""
        return tuple(
            sorted({layer for rule in self.rules if rule.steering for layer in rule.steering.layers})
        )

    @cached_property
    def only_steers(self) -> bool:
        """Whether scores of prompts can only lead to steering, by the same rules for every request.

        A prompt that cannot be evaluated may still be stopped.
        """
        plain = all(r.action == "steer" and not r.recheck for r in self.rules if r.mode == "enforce")
        return plain and self.screen is not None and all(rule.same_for_all for rule in self.rules)

    @cached_property
    def order(self) -> Mapping[str, int]:
        """The position of every prompt rule, by policy id."""
        return {rule.id: place for place, rule in enumerate(self.rules)}

    @cached_property
    def enforced_steering(self) -> tuple[int, ...]:
        """Like `steered_layers`, but only for enforced rules."""
        steered = [rule.steering for rule in self.rules if rule.steering and rule.mode == "enforce"]
        return tuple(sorted({layer for steering in steered for layer in steering.layers}))

    @cached_property
    def recheck_layers(self) -> tuple[int, ...]:
        """The layers that are read again after steering, ascending."""
        return tuple(
            sorted({rule.recheck.layer for rule in self.rules if rule.recheck and rule.recheck.layer})
        )

    @cached_property
    def visited_layers(self) -> tuple[int, ...]:
        """Every layer that is read or steered in the prompt's forward pass, ascending."""
        return tuple(sorted({*self.layers, *self.steered_layers, *self.recheck_layers}))

    @cached_property
    def may_recompute(self) -> bool:
        """Whether some rule steers a layer below the last one read."""
        return bool(self.layers and self.steered_layers and self.steered_layers[0] < self.layers[-1])

    @cached_property
    def reply_layers(self) -> tuple[int, ...]:
        """The layers that are read or steered by reply rules while a reply is generated, ascending."""
        read = {probe.layer for probe in self.reply_probes}
        steered = {layer for rule in self.reply_rules if rule.steering for layer in rule.steering.layers}
        return tuple(sorted(read | steered))

    @cached_property
    def drifts(self) -> Mapping[str, Drift]:
        """The alarms over conversations, by policy id."""
        return {rule.id: c.drift for rule in self.rules for c in rule.conditions if c.drift}

    @cached_property
    def asks_about_turns(self) -> bool:
        """Whether some rule applies only to conversations of a certain form."""
        every = (*self.rules, *self.reply_rules)
        return any(rule.when.min_turns > 1 or rule.when.last_role is not None for rule in every)

    @cached_property
    def fail_open(self) -> bool:
        """Whether any enforced rule lets prompts or replies pass on errors."""
        return any(rule.fails_open for rule in (*self.rules, *self.reply_rules))

    def stale(self, now: datetime) -> str | None:
        """Why the calibration's certificate does not count at this time; None if it does, or without one."""
        return self.certificate and self.certificate.stale(now)

    def live(self, facts: Facts) -> Live:
        """The rules that apply to this request."""
        if self._standing is None or facts.waived or facts.stale:
            return Live(self.rules, facts)
        return self._standing

    @cached_property
    def _standing(self) -> Live | None:
        return Live(self.rules, Facts()) if all(rule.same_for_all for rule in self.rules) else None

    @cached_property
    def screen(self) -> Screen | None:
        """All score comparisons at once, or None if some condition compares something else."""
        conditions = [c for rule in self.rules for c in rule.conditions]
        read: list[tuple[int, float, Fires]] = [
            (c.reading, c.threshold, c.fires) for c in conditions if c.reading is not None
        ]
        return Screen(read) if len(read) == len(conditions) else None

    def rule(self, policy: str | None) -> Rule | None:
        """The rule with this policy id."""
        return next((rule for rule in (*self.rules, *self.reply_rules) if rule.id == policy), None)

    def terms(self, layer: int) -> tuple[Terms, ...]:
        """What all probes, also those that are only read again after steering, take from a layer's states."""
        return terms_at(layer, self.probes)
