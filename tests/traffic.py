"""Audit logs of much traffic, as a guard with these policies would have written them."""

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from guardrail.audit.lines import GENESIS, encode, line_hash
from guardrail.audit.sqlite import EventTable
from guardrail.plugins.audit import AuditRecord
from guardrail.policy.loading import default_policies
from guardrail.types import Decision, Score, Timing

OUTCOMES = {"block": "blocked", "escalate": "escalated", "rephrase": "rephrased"}
BROKEN = "TimeoutError: not decided within 2000 ms"


def logged(folder):
    """The built-in model's policies in a file: with a log in this folder, and one of them a shadow."""
    text = default_policies("demo").read_text()
    text = text.replace("policies:\n", f"audit: {{jsonl: {folder / 'audit.jsonl'}}}\npolicies:\n", 1)
    text = text.replace("  - id: careful-facts\n", "  - id: careful-facts\n    mode: shadow\n")
    path = folder / "policies.yaml"
    path.write_text(text)
    return path


def traffic(plan, count, *, harmful=0.02, broken=0.001, every_s=2.5, seed=0, now=None):
    """Records of this many requests, the last one now. Benign scores are standard normal."""
    rng, end = np.random.default_rng(seed), now or datetime.now(UTC)
    traits = sorted({c.trait for rule in plan.rules for c in rule.conditions})
    scores = rng.normal(size=(count, len(traits)))
    scores[rng.random(count) < harmful, 0] += 5
    failing = rng.random(count) < broken
    times = rng.lognormal((-1.0, 2.5, 1.0), 0.4, (count, 3))
    for i in range(count):
        when = end - timedelta(seconds=(count - 1 - i) * every_s)
        found = _broken(plan) if failing[i] else _decided(plan, dict(zip(traits, scores[i], strict=True)))
        guard, prefill, queue = map(float, times[i])
        yield AuditRecord(
            id=f"{int(when.timestamp() * 1000):012x}{i:016x}",
            time=when.isoformat(timespec="milliseconds"),
            kind="chat",
            decision=found,
            prompt_sha256=f"{i:064x}",
            prompt_tokens=40,
            fingerprint="f" * 64,
            timing=Timing(guard=guard, prefill=prefill, queue=queue, total=guard + prefill + queue + 200),
            outcome=OUTCOMES.get(found.action, "answered"),
            ended=when.isoformat(timespec="milliseconds"),
            error=found.error,
        )


def _decided(plan, values):
    rules = [(rule, rule.conditions[0]) for rule in plan.rules]
    fired = [rule for rule, c in rules if c.holds(values[c.trait])]
    enforced = [rule for rule in fired if rule.mode == "enforce"]
    strongest = max(enforced, key=_strength(plan), default=None)
    would = max(fired, key=_strength(plan), default=None)
    return Decision(
        status="evaluated",
        action=strongest.action if strongest else "allow",
        would_action=would.action if would else "allow",
        policy=strongest.id if strongest else None,
        fired=tuple(rule.id for rule in fired),
        scores=tuple(_score(rule, c, float(values[c.trait])) for rule, c in rules),
        **_hashes(plan),
    )


def _score(rule, condition, value):
    return Score(
        policy=rule.id,
        trait=condition.trait,
        layer=condition.layer,
        score=value,
        threshold=condition.threshold,
        fired=condition.holds(value),
        mode=rule.mode,
    )


def _broken(plan):
    return Decision(status="error", action="block", would_action="block", error=BROKEN, **_hashes(plan))


def _strength(plan):
    return lambda rule: plan.strengths[rule.action]


def _hashes(plan):
    names = ("policy_sha256", "vectors_sha256", "calibration_sha256")
    return {name: getattr(plan, name) for name in names}


def lines(records):
    """The lines of a log: two for each request."""
    prev = GENESIS
    for record in records:
        for kind, event in (
            ("decision", replace(record, outcome=None, ended=None)),
            ("outcome", record),
        ):
            line = encode(kind, event, prev)
            prev = line_hash(line)
            yield line


def write(path, records):
    """A log of either kind, by its suffix."""
    if path.suffix == ".sqlite":
        EventTable(path).close()
        database = sqlite3.connect(path)
        database.executemany("INSERT INTO events (line) VALUES (?)", ((line,) for line in lines(records)))
        database.commit()
        database.close()
    else:
        path.write_bytes(b"".join(line + b"\n" for line in lines(records)))
    return path
