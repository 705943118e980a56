"""Prometheus metrics of one guard: a plugin that counts what the audit trail tells it.

`Guard(..., plugins=[Metrics()])` works without a server. Labels hold names from the policy file and from the
code, never anything that users sent.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric

from guardrail import errors
from guardrail.errors import ConfigError
from guardrail.pipeline.warm_up import PREFIX as WARM_UP
from guardrail.plugins.audit import AuditRecord, AuditSink
from guardrail.plugins.hookspecs import hookimpl
from guardrail.serve.gauges import GuardState
from guardrail.types import ALLOW, Decision

if TYPE_CHECKING:
    from guardrail.guard import Guard

FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
SCORES = (-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 40.0)
"""Standard deviations above the mean of benign prompts; thresholds are mostly between 2 and 6."""

NONE = "none"
"""The action on a request that ended without an answer."""
_TIMEOUT = re.compile(r"not (decided within|done in time)")
_CLASSES = frozenset(
    name
    for module in (builtins, errors)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, BaseException)
) | {"OutOfMemoryError", "AcceleratorError"}


class Metrics:
    """The metrics of one guard, in a registry of their own."""

    name = "metrics"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.state: GuardState | None = None
        self._count = _Counts(self.registry)
        self._time = _Times(self.registry)
        ProcessCollector(registry=self.registry)

    @classmethod
    def of(cls, guard: Guard) -> Metrics | None:
        """Those that the guard was made with."""
        return next((sink for sink in guard.audit.sinks.values() if isinstance(sink, cls)), None)

    # --- plugin ---------------------------------------------------------------------------------------

    @hookimpl
    def guardrail_audit_sinks(self) -> Sequence[AuditSink]:
        """This object: it hears of every request."""
        return [self]

    @hookimpl
    def guardrail_startup(self, guard: Guard) -> None:
        """Show the state of this guard. Raises ConfigError for a second one."""
        if self.state is not None:
            raise ConfigError("these metrics are another guard's; make one `Metrics()` for each guard")
        self.state = GuardState(guard)
        self.registry.register(self.state)

    # --- audit sink -----------------------------------------------------------------------------------

    def decided(self, record: AuditRecord) -> None:
        """Count a decision on a prompt. A rephrased prompt has one each time."""
        if not record.id.startswith(WARM_UP):
            self._count.decision(record.decision)

    def finished(self, record: AuditRecord) -> None:
        """Count a request at its end, or a decision that came after the caller was answered."""
        if record.id.startswith(WARM_UP):
            return
        if record.outcome == "late":
            self._count.late.inc()
            self._count.decision(record.decision)
            return
        if record.reply_decision is not None:
            self._count.decision(record.reply_decision)
        self._count.request(record)
        self._time.request(record)

    def close(self) -> None:
        """Numbers outlive the guard."""

    # --- server ---------------------------------------------------------------------------------------

    def answered(self, route: str, status: int) -> None:
        """Count a response. `route` is a path of the application, not one that somebody sent."""
        self._count.responses.labels(route, str(status)).inc()

    # --- pages ----------------------------------------------------------------------------------------

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(_Slim(self.registry))


class _Slim(CollectorRegistry):
    """A registry without the moments at which series were made, which double their number."""

    def __init__(self, full: CollectorRegistry) -> None:
        super().__init__()
        self._full = full

    def collect(self) -> Iterable[Metric]:
        for family in self._full.collect():
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family


class _Counts:
    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"guardrail_{name}", text, labels, registry=registry)

        self._requests = counter(
            "requests", "Requests that have ended.", "kind", "action", "policy", "status", "outcome"
        )
        self._errors = counter("errors", "Requests that met an error, by its kind.", "error")
        self._fail_open = counter(
            "fail_open", "Requests that were not evaluated and went on all the same.", "policy"
        )
        self.late = counter("late_decisions", "Decisions that came after their caller was answered.")
        self._rejected = counter("queue_rejections", "Requests that found the queue full.")
        self._evaluated = counter(
            "policy_evaluations", "Prompts and replies that a policy has scored.", "policy", "mode"
        )
        self._fired = counter(
            "policy_fired", "Prompts and replies on which a policy fired.", "policy", "mode"
        )
        self._prompt_tokens = counter("prompt_tokens", "Tokens of prompts.")
        self._reply_tokens = counter("reply_tokens", "Tokens that the model has generated.")
        self._steered = counter("steered_passes", "Forward passes that were steered.")
        self.responses = counter("http_responses", "Responses of the server.", "route", "status")
        self._scores = Histogram(
            "guardrail_score",
            "Scores, in standard deviations above the mean of benign prompts.",
            ("policy", "trait"),
            buckets=SCORES,
            registry=registry,
        )

    def decision(self, decision: Decision) -> None:
        modes = {score.policy: score.mode for score in decision.scores}
        for policy, mode in modes.items():
            self._evaluated.labels(policy, mode).inc()
            if policy in decision.fired:
                self._fired.labels(policy, mode).inc()
        for score in decision.scores:
            self._scores.labels(score.policy, score.trait).observe(score.score)

    def request(self, record: AuditRecord) -> None:
        decision, outcome = _final(record), record.outcome or "interrupted"
        action = NONE if outcome in ("error", "cancelled") else decision.done
        self._requests.labels(record.kind, action, decision.policy or "", decision.status, outcome).inc()
        if decision.status != "evaluated" and not decision.stops and action != NONE:
            self._fail_open.labels(decision.policy or "").inc()
        if record.error is not None:
            self._failed(error_kind(record.error))
        self._prompt_tokens.inc(record.prompt_tokens)
        self._reply_tokens.inc(record.new_tokens)
        self._steered.inc(record.steered_passes)

    def _failed(self, kind: str) -> None:
        self._errors.labels(kind).inc()
        if kind == "QueueFull":
            self._rejected.inc()


class _Times:
    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str, buckets: Sequence[float] = SECONDS) -> Histogram:
            return Histogram(f"guardrail_{name}_seconds", text, buckets=buckets, registry=registry)

        self._guard = histogram("guard", "Reading activations and deciding.", FAST)
        self._queue = histogram("queue", "Waiting for the model.")
        self._prefill = histogram("prefill", "The prompt's forward pass, without the guard.")
        self._decode = histogram("decode", "From the decision to the end, for requests that got a reply.")
        self._total = histogram("request", "From the request to its end.")

    def request(self, record: AuditRecord) -> None:
        timing = record.timing
        self._total.observe(timing.total / 1e3)
        if timing.prefill:
            self._queue.observe(timing.queue / 1e3)
            self._guard.observe(timing.guard / 1e3)
            self._prefill.observe(timing.prefill / 1e3)
        if record.new_tokens:
            rest = timing.total - timing.queue - timing.guard - timing.prefill
            self._decode.observe(max(0.0, rest) / 1e3)


def _final(record: AuditRecord) -> Decision:
    """The decision that the client met: that on the reply if it did something."""
    reply = record.reply_decision
    return record.decision if reply is None or reply.action == ALLOW else reply


def error_kind(text: str) -> str:
    """What an error of an audit record is about, in one word of a fixed set: the text may quote a prompt."""
    if text.startswith("the model has changed"):
        return "model_changed"
    if _TIMEOUT.search(text):
        return "timeout"
    if text.endswith("is not finite"):
        return "not_finite"
    return next((word for word in re.findall(r"\w+", text) if word in _CLASSES), "other")
