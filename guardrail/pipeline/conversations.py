"""Where the alarms over conversations stand: kept by conversation id, or worked out from the messages."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from guardrail.engines import Completion, Engine, ReadingEngine
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
    owed: tuple[tuple[Message, ...], ...] = ()
    """Conversations whose last turn is a reply that is still to be read."""


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
        entry = self._known(plan, name)
        states = self._from_messages(plan, messages) if entry is None else entry.states
        if entry is None or entry.owed:
            # before they are read: one that cannot be is an error of this prompt, and not of all that follow
            self._keep(plan, name, states)
            for told in entry.owed if entry else ():
                states = _after(plan, states, self._turns(plan, told)[-1:])
            self._keep(plan, name, states)
        return {policy: drift.value(states[policy]) for policy, drift in plan.drifts.items()}

    def add(self, plan: Plan, name: str | None, turn: Sequence[float] | None) -> None:
        """One more reply of a named conversation: the means of the plan's `reply_probes` over its tokens."""
        if turn is None or name is None:
            return
        with self._lock:
            entry = self._entries.get(name)
            known = entry if entry and entry.plan is plan else _Entry(plan, {})
            self._store(name, replace(known, states=_after(plan, known.states, [turn])))

    def remember(self, plan: Plan, names: Sequence[str | None], found: object) -> None:
        """Add the replies that an engine returned for a batch of these conversations (worker's thread).

        Not once they were handed out: whoever does not read a reply to its end must not evade an alarm.
        """
        completions = getattr(found, "completions", found) if plan.drifts else ()
        if not isinstance(completions, Mapping | list | tuple):
            return
        pairs = completions.items() if isinstance(completions, Mapping) else enumerate(completions)
        for row, one in pairs:
            if isinstance(one, Completion) and not one.decision.stops and one.stopped is None:
                self.add(plan, names[row], one.turn)

    def owe(self, plan: Plan, name: str | None, told: tuple[Message, ...]) -> None:
        """The last turn of `told` was handed out and not read. It will be, before the next prompt."""
        if name is None or not plan.drifts or not isinstance(self._engine, ReadingEngine):
            return
        with self._lock:
            entry = self._entries.get(name)
            # one that is not known is worked out from the messages anyway, which hold the turn
            if entry is not None and entry.plan is plan:
                self._entries[name] = replace(entry, owed=(*entry.owed, told))

    def _known(self, plan: Plan, name: str | None) -> _Entry | None:
        with self._lock:
            entry = self._entries.get(name) if name is not None else None
            if name is None or entry is None or entry.plan is not plan:
                return None
            self._entries.move_to_end(name)
            return entry

    def _keep(self, plan: Plan, name: str | None, states: States) -> None:
        if name is not None:
            with self._lock:
                self._store(name, _Entry(plan, states))

    def _store(self, name: str, entry: _Entry) -> None:
        self._entries[name] = entry
        self._entries.move_to_end(name)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def _from_messages(self, plan: Plan, messages: Sequence[Message]) -> States:
        return _after(plan, {}, self._turns(plan, messages))

    def _turns(self, plan: Plan, messages: Sequence[Message]) -> list[list[float]]:
        turns = turn_projections(self._engine, messages, plan.reply_probes)
        return [[float(row.mean()) for row in turn] for turn in turns]


def _after(plan: Plan, states: States, turns: Iterable[Sequence[float]]) -> States:
    found = {policy: states.get(policy, DriftState()) for policy in plan.drifts}
    for turn in turns:
        found = {
            policy: plan.drifts[policy].step(state, turn[plan.drifts[policy].reading])
            for policy, state in found.items()
        }
    return found
