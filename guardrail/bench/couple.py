"""A model guarded by the user's policies, and a bare model to compare it with.

The bare model is a second copy that was never wrapped. If memory only holds one copy, it is the same model:
the guard is removed before each bare call and added before each guarded one, outside the timed regions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from guardrail.audit.trail import AuditTrail
from guardrail.bench.cases import endless
from guardrail.guard import Guard
from guardrail.pipeline.driver import Driver
from guardrail.pipeline.generate import generate
from guardrail.pipeline.worker import Worker
from guardrail.plugins.audit import AuditSettings
from guardrail.policy.plan import Plan
from guardrail.types import Message

Policies = Path | dict[str, object]


class Couple:
    """A guarded and a bare model. Writes no audit records and no tickets."""

    def __init__(
        self,
        model: Any,
        bare: Any,
        tokenizer: Any,
        policies: Policies,
        engine: str = "transformers",
        chat_template: str | None = None,
    ) -> None:
        self.model, self.bare, self.tokenizer = endless(model), endless(bare), tokenizer
        self.shared = bare is model
        self._wrapped_by = partial(
            Guard, self.model, tokenizer, policies, engine=engine, chat_template=chat_template
        )
        self._guard: Guard | None = None
        self._driver: Driver | None = None

    @property
    def guard(self) -> Guard:
        """The guard, added if necessary."""
        if self._guard is None:
            self._guard = self._wrapped_by()
            self._driver = Driver(self._guard.engine, Worker(8), AuditTrail({}, AuditSettings()), {})
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

    def asked(self, tokens: int, rows: int) -> dict[str, Any]:
        """A batch of one user's message, repeated, as a prompt of so many tokens; more if turns need more."""
        import torch

        message = Message("user", "tell" + " tell" * tokens)
        prompt = self.guard.engine.render([message], (), ["user_mean"])
        ((start, end),) = prompt.spans["user_mean"]
        kept = max(end - max(len(prompt.ids) - tokens, 0), start + 1)
        ids = torch.tensor([[*prompt.ids[:kept], *prompt.ids[end:]]] * rows, device=self.bare.device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def generating(self, plan: Plan, arguments: dict[str, Any]) -> Callable[[], Any]:
        """`guard.generate` under this plan: worker, engine, decision and output."""

        def run() -> Any:
            policies = replace(self.guard.active, plan=plan)
            assert self._driver is not None
            return generate(self._driver, policies, arguments)

        return run

    def close(self) -> None:
        """Remove the guard."""
        if self._guard is not None and self._driver is not None:
            self._driver.worker.close()
            self._guard.close()
        self._guard = self._driver = None
