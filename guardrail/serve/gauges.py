"""What Prometheus reads of a guard's state at the moment it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from guardrail.actions.deliveries import counts
from guardrail.actions.escalate import QUEUE
from guardrail.actions.review_queue import ReviewQueue
from guardrail.errors import EscalationError
from guardrail.policy.rules import Rule

if TYPE_CHECKING:
    from guardrail.guard import Guard


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """`inside` of `room` requests are in the server; `rejected` were turned away because it was full.

    `keys_failing`: whether the file of API keys is wrong, so that older ones are in force.
    """

    ready: bool
    keys_failing: bool
    inside: int
    room: int
    rejected: int


class GuardState(Collector):
    """Policies in force, reloads, the queue, tickets, and what could not be recorded.

    `server` is what a server says of itself, if there is one.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.server: Callable[[], ServerState] | None = None

    def collect(self) -> Iterator[Metric]:
        yield from self._policies()
        yield from self._reloads()
        yield from self._queue()
        yield from self._audit()
        yield from self._tickets()
        if self.server is not None:
            yield from _server(self.server())

    def _policies(self) -> Iterator[Metric]:
        plan = self._guard.active.plan
        hashes = ("policy_sha256", "vectors_sha256", "calibration_sha256")
        info = GaugeMetricFamily(
            "guardrail_policies_info", "What decides: the hashes in force.", labels=hashes
        )
        info.add_metric([getattr(plan, name) for name in hashes], 1.0)
        yield info
        threshold = GaugeMetricFamily(
            "guardrail_policy_threshold",
            "The score at which a policy fires.",
            labels=("policy", "trait", "layer", "mode"),
        )
        rules = (*plan.rules, *plan.reply_rules)
        for labels, value in {labels: value for rule in rules for labels, value in _thresholds(rule)}.items():
            threshold.add_metric(labels, value)
        yield threshold
        yield GaugeMetricFamily(
            "guardrail_policies_fail_open",
            "Enforced policies that let a prompt pass if it cannot be evaluated.",
            value=sum(rule.fails_open for rule in rules),
        )

    def _reloads(self) -> Iterator[Metric]:
        policies = self._guard.policies
        yield _counted(policies.reloads, policies.failures)
        yield GaugeMetricFamily(
            "guardrail_reload_failing",
            "1 if the latest reload failed, so that older policies are in force.",
            value=policies.error is not None,
        )
        yield GaugeMetricFamily(
            "guardrail_policies_loaded_timestamp_seconds",
            "When the policies in force were loaded, in seconds since 1970.",
            value=policies.loaded_at.timestamp(),
        )

    def _queue(self) -> Iterator[Metric]:
        load = self._guard.load
        yield GaugeMetricFamily(
            "guardrail_queue_length", "Requests that wait for the model.", value=load.waiting
        )
        yield GaugeMetricFamily(
            "guardrail_queue_capacity", "How many requests may wait for the model.", value=load.capacity
        )
        yield GaugeMetricFamily(
            "guardrail_worker_busy_seconds",
            "How long the model has worked on what it runs now; 0 if it is idle.",
            value=load.busy_s or 0.0,
        )

    def _audit(self) -> Iterator[Metric]:
        audit = self._guard.audit
        yield CounterMetricFamily(
            "guardrail_audit_failures", "Writes of audit records that failed.", value=audit.failures
        )
        yield CounterMetricFamily(
            "guardrail_audit_dropped", "Audit records lost under `on_error: drop`.", value=audit.dropped
        )

    def _tickets(self) -> Iterator[Metric]:
        tickets = self._guard.tickets
        yield GaugeMetricFamily(
            "guardrail_requests_waiting_for_people",
            "Requests that wait for a person (`wait_s`).",
            value=tickets.waiting,
        )
        pending = GaugeMetricFamily(
            "guardrail_tickets_pending", "Tickets that nobody has decided on.", labels=("sink",)
        )
        up = GaugeMetricFamily(
            "guardrail_escalation_sink_up", "1 if the sink says what is pending.", labels=("sink",)
        )
        for name, sink in tickets.sinks.items():
            try:
                pending.add_metric([name], len(sink.pending()))
                up.add_metric([name], 1)
            except EscalationError:
                up.add_metric([name], 0)
        yield from (pending, up)
        queue = self._guard.sinks.get(QUEUE)
        if isinstance(queue, ReviewQueue):
            yield from _deliveries(queue)


def _deliveries(queue: ReviewQueue) -> Iterator[Metric]:
    found = GaugeMetricFamily(
        "guardrail_webhook_tickets",
        "Tickets that a webhook does not have: waiting, or dead (nobody tries any more).",
        labels=("state",),
    )
    # a queue that cannot be read has no numbers
    with suppress(EscalationError):
        for state, count in counts(queue).items():
            found.add_metric([state], count)
    yield found


def _server(state: ServerState) -> Iterator[Metric]:
    yield GaugeMetricFamily("guardrail_ready", "1 if the server is ready; see /readyz.", value=state.ready)
    yield GaugeMetricFamily(
        "guardrail_keys_failing",
        "1 if the latest reload of API keys failed, so that older ones are in force.",
        value=state.keys_failing,
    )
    yield GaugeMetricFamily("guardrail_server_requests", "Requests in the server.", value=state.inside)
    yield GaugeMetricFamily(
        "guardrail_server_capacity", "How many requests may be in the server.", value=state.room
    )
    yield CounterMetricFamily(
        "guardrail_server_rejections", "Requests that found the server full.", value=state.rejected
    )


def _thresholds(rule: Rule) -> Iterator[tuple[tuple[str, str, str, str], float]]:
    for condition in rule.conditions:
        layer = "" if condition.layer is None else str(condition.layer)
        yield (rule.id, condition.trait, layer, rule.mode), condition.threshold


def _counted(reloads: int, failures: int) -> Metric:
    found = CounterMetricFamily("guardrail_reloads", "Reloads of the policies.", labels=("result",))
    found.add_metric(["success"], reloads)
    found.add_metric(["failure"], failures)
    return found
