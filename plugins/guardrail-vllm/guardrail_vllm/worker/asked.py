"""Which plan a request comes under, and what else its decision depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from guardrail.engines import Span
from guardrail.errors import ModelError
from guardrail.policy.plan import Plan
from guardrail.types import Facts, Position
from guardrail_vllm.plans import plain, read

NAME = "guardrail"
"""The key of a request's `extra_args`, and of vLLM's `additional_config`."""
UNGUARDED = "the request came without policies: it did not come through the guard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be decided. `group`: requests of one prompt, which is decided once.

    `check`: nothing is to be generated. `turn`: means over the reply are wanted. `forced`: the decision is
    made already, and these policies steer. `to`: where whoever asks wants to hear, if not where all do.
    `spans`: the tokens of the prompt that means are taken over. `end`: a token that ends it at once and that
    the model does not say, for one that does not end at the model's own end.
    """

    key: str
    plan: Plan
    facts: Facts = field(default_factory=Facts)
    group: str | None = None
    check: bool = False
    turn: bool = False
    forced: tuple[str, ...] | None = None
    to: str | None = None
    spans: Mapping[Position, Sequence[Span]] = field(default_factory=dict[Position, Sequence[Span]])
    end: int | None = None

    @property
    def reads_means(self) -> bool:
        """Whether the decision needs every token of some turns: then no cache may hold them back."""
        return self.forced is None and bool(self.plan.positions - {"last"})

    def arguments(self, plan: str) -> dict[str, Any]:
        """As `extra_args` of a request; `plan` is the name under which the workers know the plan."""
        told = {"key": self.key, "plan": plan, "facts": plain(self.facts), "group": self.group, "to": self.to}
        told["end"] = self.end
        flags = {"check": self.check, "turn": self.turn, "forced": self.forced and list(self.forced)}
        if self.forced == ():
            flags["forced"] = []
        spans = {position: [list(span) for span in found] for position, found in self.spans.items()}
        return {NAME: {**told, **flags, "spans": spans, "steers": may_steer(self.plan)}}


def may_steer(plan: Plan) -> bool:
    """Whether a policy may steer a prompt or a reply."""
    return any(rule.steering for rule in (*plan.rules, *plan.reply_rules))


class Source(Protocol):
    """Says what is asked of a request."""

    def of(self, name: str, extra: Any) -> Asked:
        """For a request of this name with these `extra_args`. Raises ModelError: it is not served."""
        ...


class SentPlans:
    """Plans that the guard has sent, by the names that its requests carry."""

    def __init__(self) -> None:
        self.plans: dict[str, Plan] = {}

    def keep(self, names: list[str]) -> None:
        """Forget all others."""
        self.plans = {name: plan for name, plan in self.plans.items() if name in names}

    def of(self, name: str, extra: Any) -> Asked:
        """What the request says. Raises ModelError for one that did not come through the guard."""
        told = (extra or {}).get(NAME)
        if not isinstance(told, dict) or told.get("plan") not in self.plans:
            raise ModelError(UNGUARDED)
        forced = told.get("forced")
        return Asked(
            key=told["key"],
            plan=self.plans[told["plan"]],
            facts=read(told["facts"], Facts),
            group=told.get("group"),
            check=bool(told.get("check")),
            turn=bool(told.get("turn")),
            forced=None if forced is None else tuple(forced),
            to=told.get("to"),
            spans={place: [(a, b) for a, b in found] for place, found in (told.get("spans") or {}).items()},
            end=told.get("end"),
        )
