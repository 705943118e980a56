"""Public fakes and fixtures for this project's tests and plugin authors. No downloads; torch loads lazily.

`tiny_model`, `tiny_tokenizer` and `tiny_guard` are real, with random weights. `MemoryAudit` and
`MemoryQueue` are real sinks that keep their data in memory. `hand_made_vectors` and `hand_made_plan` give a
plan whose scores can be computed by hand.
"""

from guardrail.testing.fakes import MemoryAudit, MemoryQueue, audit_record, decision, ticket
from guardrail.testing.plans import hand_made_plan, hand_made_vectors, tiny_guard
from guardrail.testing.tiny import (
    ARCHITECTURES,
    CHAT_TEMPLATE,
    SLIDING_WINDOW,
    tiny_fingerprint,
    tiny_model,
    tiny_tokenizer,
)

__all__ = [
    "ARCHITECTURES",
    "CHAT_TEMPLATE",
    "SLIDING_WINDOW",
    "MemoryAudit",
    "MemoryQueue",
    "audit_record",
    "decision",
    "hand_made_plan",
    "hand_made_vectors",
    "ticket",
    "tiny_fingerprint",
    "tiny_guard",
    "tiny_model",
    "tiny_tokenizer",
]
