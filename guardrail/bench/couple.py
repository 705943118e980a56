"""A model guarded by the user's policies, and a bare model to compare it with.

The bare model is a second copy that was never wrapped. If memory only holds one copy, it is the same model:
the guard is removed before each bare call and added before each guarded one, outside the timed regions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from guardrail.audit.trail import AuditTrail
from guardrail.bench.cases import endless
from guardrail.engines.transformers.pretrained import load_pretrained
from guardrail.guard import Guard
from guardrail.pipeline.exchange import Rounds
from guardrail.pipeline.generate import GuardedGenerate
from guardrail.pipeline.respond import Responder
from guardrail.pipeline.worker import Worker
from guardrail.plugins.protocols import AuditSettings
from guardrail.policy.plan import Plan

Policies = Path | dict[str, object]


class Couple:
    """A guarded and a bare model. Writes no audit records and no tickets."""

    def __init__(self, model: Any, bare: Any, tokenizer: Any, policies: Policies) -> None:
        self.model, self.bare, self.tokenizer = endless(model), endless(bare), tokenizer
        self.shared = bare is model
        self._policies = policies
        self._guard: Guard | None = None
        self._worker: Worker | None = None

    @property
    def guard(self) -> Guard:
        """The guard, added if necessary."""
        if self._guard is None:
            self._guard, self._worker = Guard(self.model, self.tokenizer, self._policies), Worker(8)
        return self._guard

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return int(self.model.config.get_text_config(decoder=True).hidden_size)

    @property
    def wrapped(self) -> bool:
        """Whether the guard is on."""
        return self._guard is not None

    def wrap(self) -> None:
        """Add the guard. Called before every guarded call."""
        assert self.guard is not None

    def unwrap(self) -> None:
        """Remove the guard if both are the same model. Called before every bare call."""
        if self.shared:
            self.close()

    def generating(self, plan: Plan, arguments: dict[str, Any]) -> Callable[[], Any]:
        """`guard.generate` under this plan: worker, engine, decision and output."""

        def generate() -> Any:
            guard, worker = self.guard, self._worker
            assert worker is not None
            loaded = replace(guard.active, plan=plan)
            rounds = Rounds(guard.engine, worker, AuditTrail({}, AuditSettings()))
            return GuardedGenerate(rounds, loaded, Responder(loaded, _complete, {}, False)).run(arguments)

        return generate

    def close(self) -> None:
        """Remove the guard."""
        if self._guard is not None and self._worker is not None:
            self._worker.close()
            self._guard.close()
        self._guard = self._worker = None


def _complete(*_: object) -> str:
    raise AssertionError("no action of a benchmark asks the model to rewrite anything")


def load(name: str, device: str, copies: int, policies: Policies) -> Couple:
    """Load the model once or twice. Raises ModelError."""
    model, tokenizer = _loaded(name, device)
    bare = _loaded(name, device)[0] if copies > 1 else model
    return Couple(model, bare, tokenizer, policies)


def _loaded(name: str, device: str) -> tuple[Any, Any]:
    model, tokenizer = load_pretrained(name, {})
    return model.to(device), tokenizer
