"""Compiled policies: what each compares, which requests it applies to, and all thresholds at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf

from pydantic import BaseModel

from guardrail.policy.alarms import Drift
from guardrail.policy.model import Defaults, Fires, Monitor, When
from guardrail.types import Facts, Mode, Steering


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledCondition:
    """One comparison. `reading` is the probe's index in the plan, None for a scorer that reads no layer.

    `threshold` and readings are scores; `raw` is the same threshold as a projection. `fpr` and `n` give the
    calibrated rate and the number of benign prompts behind it; `slice` is the slice of the calibration that
    set the threshold, None if the benign sample did. With `drift` the condition is about earlier
    replies of the conversation and reads nothing. In a reply rule `reading` is an index into `reply_probes`.
    """

    trait: str
    layer: int | None
    reading: int | None
    threshold: float
    raw: float
    fires: Fires = "above"
    fpr: float | None = None
    n: int | None = None
    slice: str | None = None
    drift: Drift | None = None

    def holds(self, score: float) -> bool:
        """A score exactly at the threshold fires."""
        return score >= self.threshold if self.fires == "above" else score <= self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One compiled policy. `config` is the action's validated configuration; reply rules have a `monitor`."""

    id: str
    conditions: tuple[CompiledCondition, ...]
    require_all: bool = True
    action: str
    config: BaseModel | None = None
    steering: Steering | None = None
    recheck: CompiledCondition | None = None
    otherwise: str = "block"
    mode: Mode = "enforce"
    when: When = field(default_factory=When)
    share: float = 1.0
    message: str | None = None
    settings: Defaults = field(default_factory=Defaults)
    monitor: Monitor | None = None

    @property
    def on_timeout(self) -> str:
        """The action on a time-out; `on_error` unless given."""
        return self.settings.on_timeout or self.settings.on_error

    @property
    def fails_open(self) -> bool:
        """Whether the prompt passes if something goes wrong."""
        own = self.settings
        choices = (own.on_error, self.on_timeout, own.unsupported_input, own.on_model_change, self.otherwise)
        return self.mode == "enforce" and ("allow" in choices or own.on_stale == "shadow")

    def applies(self, facts: Facts) -> bool:
        """Whether the rule is on, its `when` holds, and no person has waived it. What is unknown holds."""
        when = self.when
        return (
            self.mode != "off"
            and self.id not in facts.waived
            and (not when.tags or bool(facts.tags & set(when.tags)))
            and (facts.user_turns is None or max(facts.user_turns, 1) >= when.min_turns)
            and (when.last_role is None or facts.last_role in (None, when.last_role))
        )

    def effective_mode(self, facts: Facts) -> Mode:
        """The mode for this request. With a staged rollout, a rule is a shadow outside its share.

        It is one as well if the calibration's certificate is stale and `on_stale` says so.
        """
        if facts.stale and self.mode == "enforce" and self.settings.on_stale == "shadow":
            return "shadow"
        if self.mode != "enforce" or self.share >= 1.0:
            return self.mode
        digest = hashlib.sha256(f"{self.id}\0{facts.conversation}".encode()).digest()
        return "enforce" if int.from_bytes(digest[:8]) / 2**64 < self.share else "shadow"

    @property
    def same_for_all(self) -> bool:
        """Whether the rule applies in the same way to every request, unless a person waives it."""
        return self.when == When() and self.share >= 1.0


class Live:
    """The prompt rules that apply to a request, each with its mode."""

    def __init__(self, rules: Iterable[Rule], facts: Facts) -> None:
        self.rules: tuple[tuple[Rule, Mode], ...] = tuple(
            (rule, rule.effective_mode(facts)) for rule in rules if rule.applies(facts)
        )

    @cached_property
    def timeout_s(self) -> float:
        """The shortest time limit among the enforced rules."""
        enforced = [rule for rule, mode in self.rules if mode == "enforce"]
        return min((rule.settings.timeout_ms / 1e3 for rule in enforced), default=float("inf"))

    @cached_property
    def patience_s(self) -> float:
        """The shortest time limit of all the rules, for scorers that no enforced rule waits for."""
        return min((rule.settings.timeout_ms / 1e3 for rule, _ in self.rules), default=float("inf"))

    @cached_property
    def scorers(self) -> tuple[str, ...]:
        """The names of the scorers that these rules need in addition to the model's activations."""
        return tuple(sorted({c.trait for rule, _ in self.rules for c in rule.conditions if c.layer is None}))


class Screen:
    """Compares readings [probes] with every condition's (reading, threshold, fires) at once."""

    def __init__(self, conditions: Sequence[tuple[int, float, Fires]]) -> None:
        signed = [(reading, 1.0 if fires == "above" else -1.0, t) for reading, t, fires in conditions]
        self._conditions = [(reading, sign, sign * threshold) for reading, sign, threshold in signed]

    def quiet(self, readings: Sequence[float]) -> bool:
        """Whether every score is finite and no condition fires. A score at its threshold fires."""
        return all(-inf < sign * readings[reading] < t for reading, sign, t in self._conditions)
