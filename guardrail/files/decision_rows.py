"""The JSON in which the command line and the server show decisions. Scripts depend on it."""

from __future__ import annotations

from guardrail.files.records import SCORE_FIELDS, Json, pick
from guardrail.types import Decision, Reply, Timing

BEFORE = ("status", "action", "would_action", "policy")
AFTER = ("fail_open", "warnings", "error")


def decision_row(decision: Decision, audit_id: str | None, timing: Timing | None) -> Json:
    """The stable JSON of one decision. `latency_ms` is that of the prompt's whole batch."""
    latency = timing and {"guard": round(timing.guard, 4), "prefill": round(timing.prefill, 4)}
    return {
        **pick(decision, BEFORE),
        **pick(decision, ("otherwise",) if decision.otherwise else ()),
        "scores": [pick(score, SCORE_FIELDS) for score in decision.scores],
        **pick(decision, ("policy_sha256", "vectors_sha256")),
        "audit_id": audit_id,
        **pick(decision, AFTER),
        "latency_ms": latency,
    }


def decision_rows(reply: Reply) -> list[Json]:
    """The decisions behind one reply. Only the last one's latency is known.

    The last one holds the decision on the reply as `reply_decision`: null if no policy followed it.
    """
    earlier = [decision_row(decision, reply.audit_id, None) for decision in reply.earlier]
    last = decision_row(reply.decision, reply.audit_id, reply.timing)
    return [*earlier, {**last, "reply_decision": response_row(reply.reply_decision)}]


def response_row(response: Decision | None) -> Json | None:
    """As `decision_row`, with the reply token at which a policy fired."""
    return response and {**decision_row(response, None, None), "token": response.token}
