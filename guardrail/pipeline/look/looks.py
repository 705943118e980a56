"""`look` and `alook`, for a guard."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from guardrail.engines import ReadingEngine
from guardrail.errors import ConfigError, PromptError
from guardrail.pipeline.cancellation import in_thread
from guardrail.pipeline.driver import Driver
from guardrail.pipeline.look import measure
from guardrail.pipeline.look.neighbours import DEMO, Gauge, nearest, of_the_demo
from guardrail.pipeline.look.previews import Previewer
from guardrail.pipeline.look.prompts import prompts_in
from guardrail.pipeline.look.results import Look, Near, PolicyLook, Preview, TraitLook
from guardrail.pipeline.request import request
from guardrail.policy.loading import ActivePolicies
from guardrail.policy.rules import Rule
from guardrail.types import Array, Check, Decision, Message, Messages

PREVIEW = 48
"""How many tokens of each reply are shown."""
ON_REPLY = "reads the reply, not the prompt"


class Looks(ABC):
    """`look` and `alook`, for a guard that has `check`."""

    _driver: Driver

    @property
    @abstractmethod
    def active(self) -> ActivePolicies: ...

    @abstractmethod
    def check(self, messages: Messages | str) -> Check: ...

    @cached_property
    def _gauge(self) -> Gauge:
        return Gauge()

    def look(
        self,
        messages: Messages | str,
        *,
        preview: int = PREVIEW,
        near: Sequence[Messages | str] | Path | None = None,
    ) -> Look:
        """All that the guard sees in one prompt, for people: notebooks show it as a page.

        messages: as in `check`, which is run as well, so the audit log has a record. preview: how many tokens
        to show of what the plain model and the model under each action would say; 0 for none. That text is
        not guarded: it is for the person who looks. near: benign prompts, or a file of them (that of
        `calibrate --benign`), of which the five with the nearest scores are shown; at most 256 are scored,
        64 of a file, and the scores are kept. None takes those of the built-in model for its own
        calibration, and otherwise none.

        Raises ConfigError if the engine gives no activations, PromptError for messages that cannot be read
        or are too long for the model, and what `check` raises.
        """
        if preview < 0:
            raise ConfigError("preview must be 0 or more tokens")
        driver, policies, turns = self._driver, self.active, _readable(self._driver, messages)
        given = prompts_in(near) if isinstance(near, Path) else _given(near or ())
        found = driver.worker.call(partial(measure.traits, driver.engine, policies, turns))
        checked = self.check(turns)
        benign, ids = given or of_the_demo(policies), driver.engine.render(turns).ids
        return Look(
            messages=turns,
            tokens=measure.tokens(driver.engine, ids),
            left_out=max(0, len(ids) - measure.SHOWN),
            layers=tuple(range(1, driver.engine.fingerprint.layers + 1)),
            calibrated=policies.calibration is not None,
            traits=found,
            policies=_policies(policies, checked.decision),
            decision=checked.decision,
            audit_id=checked.audit_id,
            near=self._near(policies, found, benign),
            near_of=_named(near) if given else DEMO if benign else "",
            previews=_previews(driver, policies, turns, preview),
            notes=_notes(found, policies, bool(benign)),
        )

    def _near(
        self, policies: ActivePolicies, found: Sequence[TraitLook], benign: Sequence[Sequence[Message]]
    ) -> tuple[Near, ...]:
        engine, call = self._driver.engine, self._driver.worker.call
        own, layers = np.array([one.score for one in found], np.float32), [one.layer for one in found]

        def score(messages: Sequence[Message]) -> Array:
            return call(partial(measure.own_scores, engine, policies, messages, layers))

        return nearest(policies, own, benign, self._gauge, score)

    async def alook(self, messages: Messages | str, **options: Any) -> Look:
        """`look`, without blocking the event loop."""
        return await in_thread(self.look, messages, **options)


def _given(near: Sequence[Messages | str]) -> Sequence[tuple[Message, ...]]:
    return [request("check", one).messages for one in near]


def _named(near: Sequence[Messages | str] | Path | None) -> str:
    return f"prompts of {near.name}" if isinstance(near, Path) else "the prompts given"


def _readable(driver: Driver, messages: Messages | str) -> tuple[Message, ...]:
    """The turns. Raises ConfigError and PromptError for what cannot be looked at."""
    if not isinstance(driver.engine, ReadingEngine):
        raise ConfigError("this engine gives no activations, so there is nothing to look at")
    asked = request("check", messages)
    if asked.raw is not None:
        raise PromptError("only prompts that a chat template renders can be looked at", "messages")
    if asked.unreadable:
        raise PromptError(f"the prompt cannot be looked at: {asked.unreadable}", "messages")
    length, most = len(driver.engine.render(asked.messages).ids), driver.engine.max_tokens
    if length >= most:
        raise PromptError(f"the prompt has {length} tokens, and the model takes {most}", "messages")
    return asked.messages


def _policies(policies: ActivePolicies, decision: Decision) -> tuple[PolicyLook, ...]:
    rules = [_policy(rule, decision) for rule in policies.plan.rules]
    replies = [
        PolicyLook(id=rule.id, action=rule.action, mode=rule.mode, why_not=ON_REPLY)
        for rule in policies.plan.reply_rules
    ]
    return (*rules, *replies)


def _policy(rule: Rule, decision: Decision) -> PolicyLook:
    scores = tuple(score for score in decision.scores if score.policy == rule.id)
    off = "is off" if rule.mode == "off" else "" if scores else "does not apply to this prompt"
    return PolicyLook(
        id=rule.id,
        action=rule.action,
        mode=scores[0].mode if scores else rule.mode,
        scores=scores,
        fired=rule.id in decision.fired,
        why_not=off,
    )


def _previews(
    driver: Driver, policies: ActivePolicies, turns: Sequence[Message], preview: int
) -> tuple[Preview, ...]:
    if not preview:
        return ()
    return Previewer(driver.engine, driver.worker, policies, preview).all(turns)


def _notes(found: Sequence[TraitLook], policies: ActivePolicies, near: bool) -> tuple[str, ...]:
    lost = [one.trait for one in found if one.score != one.score]
    small = [one.trait for one in found if 0 < one.n < 300]
    return (
        *(
            ["Without a calibration these are projections, which cannot be compared."]
            if policies.calibration is None
            else []
        ),
        *([f"Nothing could be read for {', '.join(lost)}."] if lost else []),
        *([f"Percentiles of {', '.join(small)} rest on fewer than 300 benign prompts."] if small else []),
        *(["No benign prompts were given, so none are shown that are near."] if not near else []),
    )
