"""The check behind `/readyz`: a harmless prompt through the model, for every policy in force.

It runs in the background: at the start, after a reload, and again after errors and while anything is wrong.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING

from guardrail.errors import AuditError, QueueFull, outline
from guardrail.policy.loading import ActivePolicies

if TYPE_CHECKING:
    from guardrail import Guard

log = logging.getLogger("guardrail.serve")

RETRY_S = 5.0
"""How long after one check the next may begin."""


class WarmUp:
    """Whether the policies in force have decided on a harmless prompt.

    Until policies that were reloaded are checked, the last result counts: all servers reload at once.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._checked: ActivePolicies | None = None
        self._errors = 0
        self._begun = -RETRY_S
        self._task: asyncio.Task[None] | None = None
        self.problems: tuple[str, ...] = ("the first warm-up check has not ended yet",)

    def look(self) -> None:
        """Begin a check in the background if one is due."""
        running = self._task is not None and not self._task.done()
        if self._due() and not running and monotonic() - self._begun >= RETRY_S:
            self._begun = monotonic()
            self._task = asyncio.get_running_loop().create_task(self.run())

    def _due(self) -> bool:
        guard = self._guard
        changed = self._checked is not guard.active or self._errors != guard.audit.errors
        return changed or bool(self.problems) or guard.audit.failing is not None

    async def run(self) -> None:
        """Check now. A model that is too busy leaves things as they are."""
        active, errors = self._guard.active, self._guard.audit.errors
        try:
            problems = await asyncio.to_thread(self._guard.warm_up)
        except QueueFull:
            return
        except AuditError:
            problems = ("an audit record could not be written",)
        except Exception as error:
            problems = (f"the warm-up check failed: {outline(error)}",)
        for problem in problems:
            log.warning("not ready: %s", problem)
        self._checked, self._errors, self.problems = active, errors, problems

    async def end(self) -> None:
        """Wait for a check that runs."""
        if self._task is not None:
            await asyncio.wait([self._task])
