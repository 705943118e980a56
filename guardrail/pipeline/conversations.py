"""Where the alarms over conversations stand: kept by conversation id, or worked out from the messages."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from guardrail.engines import Completion, Engine, ReadingEngine
from guardrail.files.forks import freed
from guardrail.pipeline.request import Talk
from guardrail.pipeline.turns import reply_projections, turn_projections
from guardrail.policy.alarms import DriftState
from guardrail.policy.plan import Plan
from guardrail.types import Message

CAPACITY = 10_000
"""Conversations that a guard remembers; the one that was quiet longest is forgotten first."""

States = Mapping[str, DriftState]


@dataclass(frozen=True, slots=True)
class Told:
    """A reply to a prompt that was given as tokens: the ids of the prompt, and its own."""

    prompt: tuple[int, ...]
    reply: tuple[int, ...]


Owed: TypeAlias = tuple[Message, ...] | Told
"""A reply that is still to be read; the messages of its conversation end with it."""


@dataclass(frozen=True, slots=True)
class _Entry:
    plan: Plan
    states: States
    owed: tuple[Owed, ...] = ()


class Conversations:
    """The alarms of each named conversation. Thread-safe and bounded.

    A conversation that is not remembered, or that has no name, is worked out from the assistant turns of its
    messages, in one more forward pass. Other policies (a reload) start anew, from the messages as well.
    """

    def __init__(self, engine: Engine, capacity: int = CAPACITY) -> None:
        self._engine, self._capacity = engine, capacity
        self._entries: OrderedDict[Talk, _Entry] = OrderedDict()
        self._lock = freed(threading.Lock())

    def __len__(self) -> int:
        return len(self._entries)

    def values(self, plan: Plan, talk: Talk | None, messages: Sequence[Message]) -> Mapping[str, float]:
        """The alarms' values before this prompt, by policy id (worker's thread). Raises EvaluationError.

        `talk` is the conversation, None if its caller gave no id.
        """
        entry = self._known(plan, talk)
        if talk is None or entry is None:
            states = self._begun(plan, talk, self._from_messages(plan, messages))
        else:
            states = self._settled(plan, talk, entry) if entry.owed else entry.states
        return {policy: drift.value(states[policy]) for policy, drift in plan.drifts.items()}

    def add(self, plan: Plan, talk: Talk | None, turn: Sequence[float] | None) -> None:
        """One more reply of a named conversation: the means of the plan's `reply_probes` over its tokens."""
        if turn is None or talk is None:
            return
        with self._lock:
            known = self._current(plan, talk) or _Entry(plan, {})
            self._store(talk, replace(known, states=_after(plan, known.states, [turn])))

    def remember(self, plan: Plan, talks: Sequence[Talk | None], found: object) -> None:
        """Add the replies that an engine returned for a batch of these conversations (worker's thread).

        Not once they were handed out: whoever does not read a reply to its end must not evade an alarm.
        """
        completions = getattr(found, "completions", found) if plan.drifts else ()
        if not isinstance(completions, Mapping | list | tuple):
            return
        pairs = completions.items() if isinstance(completions, Mapping) else enumerate(completions)
        for row, one in pairs:
            if isinstance(one, Completion) and not one.decision.stops and one.stopped is None:
                self.add(plan, talks[row], one.turn)

    def owe(self, plan: Plan, talk: Talk | None, told: Owed) -> None:
        """This reply was handed out and not read. It will be, before the next prompt."""
        if talk is None or not plan.drifts or not isinstance(self._engine, ReadingEngine):
            return
        with self._lock:
            # one that is not known is worked out from the messages anyway, which hold the turn
            if (entry := self._current(plan, talk)) is not None:
                self._entries[talk] = replace(entry, owed=(*entry.owed, told))

    def _known(self, plan: Plan, talk: Talk | None) -> _Entry | None:
        if talk is None:
            return None
        with self._lock:
            if (entry := self._current(plan, talk)) is not None:
                self._entries.move_to_end(talk)
            return entry

    def _begun(self, plan: Plan, talk: Talk | None, states: States) -> States:
        """Keep where a conversation stands, unless another request has while its messages were read."""
        if talk is None:
            return states
        with self._lock:
            entry = self._current(plan, talk) or _Entry(plan, states)
            self._store(talk, entry)
            return entry.states

    def _settled(self, plan: Plan, talk: Talk, entry: _Entry) -> States:
        """Where a conversation stands, with what was owed. What others add meanwhile counts as well."""
        turns = dict[int, list[list[float]]]()
        try:
            for told in entry.owed:
                turns[id(told)] = self._turns(plan, told)[-1:]
        finally:
            # one that cannot be read is an error of this prompt, and not of all that follow
            states = self._paid(plan, talk, entry, turns)
        return states

    def _paid(
        self, plan: Plan, talk: Talk, entry: _Entry, turns: Mapping[int, Sequence[Sequence[float]]]
    ) -> States:
        """Count what `entry` owed, once; `turns` by the ids of what was told."""
        done = {id(told) for told in entry.owed}
        with self._lock:
            now = self._current(plan, talk) or entry
            found = [turn for told in now.owed for turn in turns.get(id(told), ())]
            states = _after(plan, now.states, found)
            self._store(talk, _Entry(plan, states, tuple(told for told in now.owed if id(told) not in done)))
        return states

    def _current(self, plan: Plan, talk: Talk) -> _Entry | None:
        entry = self._entries.get(talk)
        return entry if entry is not None and entry.plan is plan else None

    def _store(self, talk: Talk, entry: _Entry) -> None:
        self._entries[talk] = entry
        self._entries.move_to_end(talk)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def _from_messages(self, plan: Plan, messages: Sequence[Message]) -> States:
        return _after(plan, {}, self._turns(plan, messages))

    def _turns(self, plan: Plan, told: Sequence[Message] | Told) -> list[list[float]]:
        if isinstance(told, Told):
            turns = reply_projections(self._engine, told.prompt, told.reply, plan.reply_probes)
        else:
            turns = turn_projections(self._engine, told, plan.reply_probes)
        return [[float(row.mean()) for row in turn] for turn in turns]


def _after(plan: Plan, states: States, turns: Iterable[Sequence[float]]) -> States:
    found = {policy: states.get(policy, DriftState()) for policy in plan.drifts}
    for turn in turns:
        found = {
            policy: plan.drifts[policy].step(state, turn[plan.drifts[policy].reading])
            for policy, state in found.items()
        }
    return found
