"""What a fault of each plugin, file and pass does to a request. The table is in guardrail/pipeline/README.md.

To write the table anew: GUARDRAIL_WRITE_TABLES=1 pytest tests/pipeline/test_faults.py
"""

import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from plugging import ManyKinds
from tiny import NEVER, batch, guard, policy, rewatch

from guardrail import Guard
from guardrail.pipeline import tickets
from guardrail.plugins.hookspecs import hookimpl
from guardrail.testing import MemoryAudit, MemoryQueue
from guardrail.types import Message

README = Path(__file__).parents[2] / "guardrail" / "pipeline" / "README.md"
START, END = "<!-- faults -->\n", "<!-- end of faults -->\n"
LIMIT_MS, WAIT_S = 1000, 2.0
"""A caller who has no answer in twice the time limit waits for the fault to end."""
NOT_MET, SILENT = "–", "answered"
GREEDY = {"temperature": 0, "max_new_tokens": 4}
SETTINGS = {
    "`block`": {"on_error": "block"},
    "`allow`": {"on_error": "allow"},
    "`escalate`": {"on_error": "escalate"},
    "shadow": {"mode": "shadow"},
}
FAULTS = ("raises", "raises SystemExit", "hangs", "wrong type", "not finite")


class Faulty(ManyKinds):
    """Plugins of every kind that work until a fault is switched on in one place."""

    name = "faulty"

    def __init__(self, place: str) -> None:
        self.wanted = "block" if place == "review" else None
        self.place, self.fault, self.queue, self.records = place, "", MemoryQueue(), MemoryAudit()
        self.gate, self.met = threading.Event(), False

    def at(self, place: str, value: Any) -> Any:
        """The value; if this is the place, whatever the fault makes of it."""
        if place != self.place.partition(",")[0] or not self.fault:
            return value
        self.met = True
        if self.fault == "raises":
            raise ValueError("a secret")
        if self.fault == "raises SystemExit":
            raise SystemExit(3)
        if self.fault == "hangs":
            self.gate.wait()
            return value
        return object() if self.fault == "wrong type" else float("nan")

    def rephrase(self, messages, instruction, complete):
        return self.at("rephraser", [Message("user", "Hello again")])

    def open(self, ticket):
        self.at("escalation sink", self.queue.open(ticket))

    def get(self, ticket_id):
        return self.queue.get(ticket_id)

    pending = resolve = use = get

    def decided(self, record):
        self.at("audit sink", self.records.decided(record))

    def finished(self, record):
        self.records.finished(record)

    def close(self):
        pass

    @hookimpl
    def guardrail_probes(self, fingerprint):
        return self.at("reload of policies", [])

    @hookimpl
    def guardrail_rephrasers(self):
        return [self]

    @hookimpl
    def guardrail_escalation_sinks(self):
        return [self]

    @hookimpl
    def guardrail_audit_sinks(self, settings):
        return [self]


def forward(made: Guard, faulty: Faulty, first: int) -> None:
    """A fault in the forward passes from this one on."""
    passes = []

    def hook(module, args, output):
        passes.append(output)
        if len(passes) > first:
            changed = faulty.at(faulty.place, output)
            return torch.full_like(output, changed) if isinstance(changed, float) else changed
        return None

    made.engine.blocks[0].register_forward_hook(hook)
    rewatch(made)


def rendered(made: Guard, faulty: Faulty) -> None:
    render = made.engine.render
    made.engine.render = lambda *given: faulty.at("chat template", render(*given))


def replied(made: Guard, faulty: Faulty) -> None:
    reply = made.engine.reply
    made.engine.reply = lambda *arguments: faulty.at("engine's replies", reply(*arguments))


def asked(made: Guard, faulty: Faulty) -> Any:
    return made.chat("Hello", **GREEDY)


def streamed(made: Guard, faulty: Faulty) -> Any:
    class Streamer:
        def put(self, value):
            faulty.at("streamer of `generate`", None)

        def end(self):
            pass

    made.generate(**batch(1), max_new_tokens=4, pad_token_id=0, streamer=Streamer())
    return made.last_decisions[0]


def reloaded(made: Guard, faulty: Faulty) -> Any:
    before = made.active
    return "keeps the last good file" if not made.reload() and made.active is before else "reloaded"


@dataclass(frozen=True)
class Place:
    """Where a fault is, the rule that meets it, and which faults there can be."""

    rule: dict[str, object]
    faults: tuple[str, ...] = FAULTS[:4]
    prepare: Callable[[Guard, Faulty], None] = lambda made, faulty: None
    ask: Callable[[Guard, Faulty], Any] = asked
    audit: dict[str, object] = field(default_factory=dict)
    limited: bool = False
    """Whether a time limit bounds the fault: the policy's, before the decision, or that of sinks."""

    @property
    def wait_s(self) -> float:
        return WAIT_S if self.limited else WAIT_S / 8


PLACES = {
    "scorer": Place(policy(trait="faulty", threshold=0.5), FAULTS, limited=True),
    "review": Place(policy(threshold=NEVER), limited=True),
    "action": Place(policy("faulty")),
    "rephraser": Place(policy({"rephrase": {"by": "faulty"}})),
    "escalation sink": Place(policy({"escalate": {"to": "faulty"}}), FAULTS[:3], limited=True),
    "audit sink": Place(policy(threshold=NEVER), FAULTS[:3]),
    "audit sink, `audit: {on_error: drop}`": Place(
        policy(threshold=NEVER), FAULTS[:3], audit={"on_error": "drop"}
    ),
    "chat template": Place(policy(), prepare=rendered),
    "prompt's forward pass": Place(
        policy(), FAULTS, lambda made, faulty: forward(made, faulty, 0), limited=True
    ),
    "reply's forward passes": Place(
        policy(stage="response", threshold={"raw": NEVER}),
        FAULTS,
        lambda made, faulty: forward(made, faulty, 1),
    ),
    "engine's replies": Place(policy(threshold=NEVER), prepare=replied),
    "streamer of `generate`": Place(policy(threshold=NEVER), FAULTS[:3], ask=streamed),
    "reload of policies": Place(policy(), ask=reloaded),
}
"""Rules fire, unless the fault comes after the decision or is what has to stop the prompt."""


def outcome(made: Guard, place: Place, faulty: Faulty) -> str:
    """What the caller gets, in few words."""
    found: list[Any] = []
    faulty.met, dropped = False, made.audit.dropped

    def ask() -> None:
        try:
            found.append(place.ask(made, faulty))
        except BaseException as error:
            found.append(error)

    caller = threading.Thread(target=ask)
    caller.start()
    caller.join(place.wait_s if faulty.fault == "hangs" else None)
    if waits := not found:
        faulty.gate.set()
        caller.join()
    if faulty.fault and not faulty.met:
        return NOT_MET
    return "waits" if waits else described(found[0], made, made.audit.dropped > dropped)


def described(found: Any, made: Guard, dropped: bool) -> str:
    if isinstance(found, str):
        return found
    if isinstance(found, BaseException):
        return f"`{type(found).__name__}`"
    final = getattr(found, "final", found)
    if final.stops:
        return getattr(found, "outcome", "blocked")
    if final.status != "evaluated" or set(final.warnings) - set(made.active.plan.warnings):
        return "answered, with the error"
    return "answered, counted" if dropped else SILENT


@cache
def cells(name: str) -> dict[str, list[str]]:
    """For each fault the outcomes, in the order of SETTINGS."""
    # side by side: most of the time is waiting for what hangs
    with ThreadPoolExecutor(len(SETTINGS)) as pool:
        columns = list(pool.map(lambda settings: column(name, settings), SETTINGS.values()))
    return {fault: [column[fault] for column in columns] for fault in PLACES[name].faults}


def column(name: str, settings: dict[str, object]) -> dict[str, str]:
    """The outcome of each fault with these settings."""
    place, faulty, found = PLACES[name], Faulty(name), {}
    rule = {**place.rule, **settings, **({"timeout_ms": LIMIT_MS} if place.limited else {})}
    keys = {"options": {"plugins": [faulty]}, "audit": place.audit, "allow_empty": True}
    with tempfile.TemporaryDirectory() as folder, guard(Path(folder), rule, **keys) as made:
        place.prepare(made, faulty)
        healthy = outcome(made, place, faulty)
        for fault in place.faults:
            faulty.fault, faulty.gate = fault, threading.Event()
            found[fault] = outcome(made, place, faulty)
            faulty.fault = ""
            faulty.gate.set()
            assert outcome(made, place, faulty) == healthy, "the guard does not recover"
    records = list(faulty.records.records.values())
    assert records or place.ask is reloaded
    assert all(record.outcome for record in records)
    return found


@pytest.fixture(autouse=True)
def queue(tmp_path, monkeypatch):
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(tmp_path / "queue.sqlite"))
    monkeypatch.setattr(tickets, "LIMIT_S", LIMIT_MS / 1000)


@pytest.mark.parametrize("name", PLACES)
def test_no_fault_passes_in_silence(name):
    for fault, outcomes in cells(name).items():
        assert not {SILENT, "reloaded"} & set(outcomes), fault


def table() -> str:
    head = ("fault of", "which", *SETTINGS)
    lines = [head, ["---"] * len(head)]
    for name in PLACES:
        alike: dict[tuple[str, ...], list[str]] = {}
        for fault, outcomes in cells(name).items():
            alike.setdefault(tuple(outcomes), []).append(fault)
        lines += [(name, ", ".join(faults), *outcomes) for outcomes, faults in alike.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def test_the_table_of_faults_is_the_one_in_the_readme():
    before, _, rest = README.read_text().partition(START)
    old, _, after = rest.partition(END)
    if os.environ.get("GUARDRAIL_WRITE_TABLES"):
        README.write_text(f"{before}{START}{table()}{END}{after}")
    else:
        assert old == table()
