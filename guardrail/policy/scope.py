"""Finds the rules of a plan that apply to a request, and whether they are enforced for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from guardrail.policy.model import When
from guardrail.types import Facts, Mode

if TYPE_CHECKING:
    from guardrail.policy.plan import Rule


class Live:
    """The prompt rules that apply to a request, each with its mode."""

    def __init__(self, rules: Iterable[Rule], facts: Facts) -> None:
        self.rules: tuple[tuple[Rule, Mode], ...] = tuple(
            (rule, effective_mode(rule, facts)) for rule in rules if applies(rule, facts)
        )

    @cached_property
    def timeout_s(self) -> float:
        """The shortest time limit among the enforced rules."""
        enforced = [rule for rule, mode in self.rules if mode == "enforce"]
        return min((rule.settings.timeout_ms / 1e3 for rule in enforced), default=float("inf"))

    @cached_property
    def scorers(self) -> tuple[str, ...]:
        """The names of the scorers that these rules need in addition to the model's activations."""
        return tuple(sorted({c.trait for rule, _ in self.rules for c in rule.conditions if c.layer is None}))


def applies(rule: Rule, facts: Facts) -> bool:
    """Whether a rule is on, its `when` holds, and no person has waived it."""
    when = rule.when
    return (
        rule.mode != "off"
        and rule.id not in facts.waived
        and (not when.tags or bool(facts.tags & set(when.tags)))
        and max(facts.user_turns, 1) >= when.min_turns
        and (when.last_role is None or when.last_role == facts.last_role)
    )


def effective_mode(rule: Rule, facts: Facts) -> Mode:
    """The mode for this request. With a staged rollout, a rule is a shadow outside its share."""
    if rule.mode != "enforce" or rule.share >= 1.0:
        return rule.mode
    digest = hashlib.sha256(f"{rule.id}\0{facts.conversation}".encode()).digest()
    return "enforce" if int.from_bytes(digest[:8]) / 2**64 < rule.share else "shadow"


def same_for_all(rule: Rule) -> bool:
    """Whether a rule applies in the same way to every request, unless somebody waives it."""
    return rule.when == When() and rule.share >= 1.0
