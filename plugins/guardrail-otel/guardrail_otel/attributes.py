"""From audit records to attributes: the GenAI semantic conventions (`gen_ai.*`), and `guardrail.*`.

Source: https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-spans.md (status:
development). It has no operation for a check that generates nothing; ours is `check`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from guardrail.plugins.audit import AuditRecord
from guardrail.types import Message, Score

Value: TypeAlias = str | bool | int | float | Sequence[str]
Attributes: TypeAlias = dict[str, Value]

PROVIDER = "guardrail"
OPERATIONS: Mapping[str, str] = {
    "chat": "chat",
    "stream": "chat",
    "generate": "text_completion",
    "check": "check",
}


def begun(record: AuditRecord, model: str) -> Attributes:
    """What is known when the prompt was evaluated, for samplers to see."""
    found: Attributes = {
        "gen_ai.operation.name": OPERATIONS[record.kind],
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
        "gen_ai.request.stream": record.kind == "stream",
        "gen_ai.conversation.id": record.conversation,
        "guardrail.audit_id": record.id,
    }
    return _given(found)


def of(record: AuditRecord) -> Attributes:
    """What is known at the end."""
    decision, reply, timing = record.decision, record.reply_decision, record.timing
    telling = reply if reply is not None and reply.stops else decision
    found: Attributes = {
        "gen_ai.response.id": record.id,
        "gen_ai.response.finish_reasons": _finish_reasons(record),
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.new_tokens,
        "guardrail.outcome": record.outcome or "interrupted",
        "guardrail.status": telling.status,
        "guardrail.action": telling.done,
        "guardrail.would_action": telling.would_action,
        "guardrail.policy": telling.policy or "",
        "guardrail.fired": [*decision.fired, *(reply.fired if reply else ())],
        "guardrail.fail_open": decision.fail_open,
        "guardrail.policy_sha256": decision.policy_sha256,
        "guardrail.vectors_sha256": decision.vectors_sha256,
        "guardrail.calibration_sha256": decision.calibration_sha256,
        "guardrail.ticket_id": record.ticket_id or "",
        "guardrail.attempts": record.attempts,
        "guardrail.steered_passes": record.steered_passes,
        "guardrail.guard_ms": timing.guard,
        "guardrail.queue_ms": timing.queue,
        "guardrail.prefill_ms": timing.prefill,
    }
    return _given(found)


def score(score: Score, stage: str) -> Attributes:
    """The attributes of the event `guardrail.score`."""
    found: Attributes = {
        "guardrail.stage": stage,
        "guardrail.policy": score.policy,
        "guardrail.trait": score.trait,
        "guardrail.score": score.score,
        "guardrail.threshold": score.threshold,
        "guardrail.fired": score.fired,
        "guardrail.mode": score.mode,
    }
    return found if score.layer is None else {**found, "guardrail.layer": score.layer}


def content(record: AuditRecord) -> Attributes:
    """Messages and reply, if the record has them."""
    found: Attributes = {}
    if record.messages is not None:
        found["gen_ai.input.messages"] = json.dumps([_message(turn) for turn in record.messages])
    if record.text is not None:
        reasons = [*_finish_reasons(record), ""]
        reply = _message(Message("assistant", record.text)) | {"finish_reason": reasons[0]}
        found["gen_ai.output.messages"] = json.dumps([reply])
    return found


def _message(message: Message) -> dict[str, object]:
    return {"role": message.role, "parts": [{"type": "text", "content": message.content}]}


def _finish_reasons(record: AuditRecord) -> Sequence[str]:
    stopped = record.outcome in ("blocked", "escalated")
    return ["content_filter"] if stopped else list(record.finish)


def _given(found: Attributes) -> Attributes:
    """Without what is empty; a count of 0 and a false are something."""
    return {name: value for name, value in found.items() if value not in ("", [], ())}
