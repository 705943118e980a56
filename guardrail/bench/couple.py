"""The model under the user's policies, and the bare one beside it.

Bare is a second copy that was never wrapped. Where memory holds only one, it is the same model with the guard
taken off before each bare call and put on before each guarded one, outside of the timed regions.
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
from guardrail.plugins.protocols import AuditSettings
from guardrail.policy.plan import Plan

Policies = Path | dict[str, object]


class Couple:
    """Guarded and bare. No record is written to an audit sink, and no queue gets a ticket."""

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
        """Put on, if it is not."""
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
        """Put the guard on; called before every guarded call."""
        assert self.guard is not None

    def unwrap(self) -> None:
        """Take the guard off where the bare model is the same; called before every bare call."""
        if self.shared:
            self.close()

    def generating(self, plan: Plan, arguments: dict[str, Any]) -> Callable[[], Any]:
        """`guard.generate` under this plan: worker, engine, decision and output."""

        def run() -> Any:
            policies = replace(self.guard.active, plan=plan)
            assert self._driver is not None
            return generate(self._driver, policies, arguments)

        return run

    def close(self) -> None:
        """Take the guard off."""
        if self._guard is not None and self._driver is not None:
            self._driver.worker.close()
            self._guard.close()
        self._guard = self._driver = None
