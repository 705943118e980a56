"""Where the alarms over conversations stand: kept by conversation id, or worked out from the messages."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from guardrail.engines import Engine
from guardrail.files.forks import freed
from guardrail.pipeline.turns import turn_projections
from guardrail.policy.alarms import DriftState
from guardrail.policy.plan import Plan
from guardrail.types import Message

CAPACITY = 10_000
"""Conversations that a guard remembers; the one that was quiet longest is forgotten first."""

States = Mapping[str, DriftState]


@dataclass(frozen=True, slots=True)
class _Entry:
    plan: Plan
    states: States


class Conversations:
    """The alarms of each named conversation. Thread-safe and bounded.

    A conversation that is not remembered, or that has no name, is worked out from the assistant turns of its
    messages, in one more forward pass. Other policies (a reload) start anew, from the messages as well.
    """

    def __init__(self, engine: Engine, capacity: int = CAPACITY) -> None:
        self._engine, self._capacity = engine, capacity
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = freed(threading.Lock())

    def __len__(self) -> int:
        return len(self._entries)

    def values(self, plan: Plan, name: str | None, messages: Sequence[Message]) -> Mapping[str, float]:
        """The alarms' values before this prompt, by policy id (worker's thread). Raises EvaluationError.

        `name` is the conversation's id, None if it has none.
        """
        states = self._known(plan, name)
        if states is None:
            states = self._from_messages(plan, messages)
            self._keep(plan, name, states)
        return {policy: drift.value(states[policy]) for policy, drift in plan.drifts.items()}

    def add(self, plan: Plan, name: str | None, turn: Sequence[float] | None) -> None:
        """One more reply of a named conversation: the means of the plan's `reply_probes` over its tokens."""
        if turn is None or name is None:
            return
        with self._lock:
            entry = self._entries.get(name)
            before = entry.states if entry and entry.plan is plan else {}
            self._store(plan, name, _after(plan, before, [turn]))

    def _known(self, plan: Plan, name: str | None) -> States | None:
        with self._lock:
            entry = self._entries.get(name) if name is not None else None
            if name is None or entry is None or entry.plan is not plan:
                return None
            self._entries.move_to_end(name)
            return entry.states

    def _keep(self, plan: Plan, name: str | None, states: States) -> None:
        if name is not None:
            with self._lock:
                self._store(plan, name, states)

    def _store(self, plan: Plan, name: str, states: States) -> None:
        self._entries[name] = _Entry(plan, states)
        self._entries.move_to_end(name)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def _from_messages(self, plan: Plan, messages: Sequence[Message]) -> States:
        turns = turn_projections(self._engine, messages, plan.reply_probes)
        return _after(plan, {}, [[float(row.mean()) for row in turn] for turn in turns])


def _after(plan: Plan, states: States, turns: Iterable[Sequence[float]]) -> States:
    found = {policy: states.get(policy, DriftState()) for policy in plan.drifts}
    for turn in turns:
        found = {
            policy: plan.drifts[policy].step(state, turn[plan.drifts[policy].reading])
            for policy, state in found.items()
        }
    return found
