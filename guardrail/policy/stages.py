"""Checks and compiles policies about replies and conversations. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel

from guardrail.calibration.benign import BenignReplies
from guardrail.errors import CalibrationError
from guardrail.policy.alarms import Drift
from guardrail.policy.model import Condition, Conversation, FprThreshold, Monitor, Policy
from guardrail.policy.rules import CompiledCondition
from guardrail.policy.thresholds import raw_reply_threshold
from guardrail.types import Probe, ProbeSite

PROMPT_KEYS = ("on_timeout", "timeout_ms", "on_truncate")
"""Settings that only concern the time before the first token."""

Place = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """How projections become scores: the benign mean and standard deviation, or none (0 and 1)."""

    mean: float = 0.0
    sd: float = 1.0

    def folded(self, probe: Probe) -> Probe:
        """The probe whose projection is the score. Raises CalibrationError if float32 cannot hold it.

        A probe of tool results alone scores 0, the benign mean, where there are none.
        """
        with np.errstate(all="ignore"):
            offset = (probe.offset - self.mean) / self.sd
            found = replace(
                probe,
                weights=(probe.weights / self.sd).astype(np.float32),
                offset=offset,
                absent=probe.absent / self.sd if probe.earlier or probe.position != "tool_mean" else -offset,
                earlier=tuple(self._divided(site) for site in probe.earlier),
            )
            parts = [
                np.array([offset], np.float32),
                *(np.append(s.weights, np.float32(s.absent)) for s in found.sites),
            ]
        if not np.isfinite(np.concatenate(parts)).all():
            raise CalibrationError(
                f"the calibration of `{probe.trait}` at layer {probe.layer} scales it out of range"
            )
        return found

    def _divided(self, site: ProbeSite) -> ProbeSite:
        weights = (site.weights / self.sd).astype(np.float32)
        return replace(site, weights=weights, absent=site.absent / self.sd)

    def score(self, projection: float) -> float:
        """The score of a projection."""
        return (projection - self.mean) / self.sd


def stage_problems(policy: Policy) -> list[tuple[Place, str]]:
    """(key, message) for each key that does not fit the policy's stage."""
    if policy.stage == "prompt":
        wrong = policy.monitor is not None
        return [(("monitor",), "needs `stage: response`")] if wrong else []
    given = [key for key in PROMPT_KEYS if getattr(policy, key) is not None]
    found = [((key,), "applies to prompts only, not to `stage: response`") for key in given]
    if policy.conversation is not None:
        found.append((("conversation",), "acts on the next prompt; leave out `stage: response`"))
    return found


def action_problems(policy: Policy, config: BaseModel) -> list[tuple[Place, str]]:
    """(key under the action, message) for each setting that does not work once a reply has begun."""
    settings: Mapping[str, object] = config.model_dump()
    if policy.conversation is not None and settings.get("recheck"):
        return [(("recheck",), "does not apply to `conversation`, which reads no layer")]
    if policy.stage == "prompt":
        return []
    if policy.action.name == "rephrase":
        text = "cannot rephrase in the stage `response`, because the reply has already begun"
        return [((), f"{text}; use `block`, `steer` or `escalate`")]
    found: list[tuple[Place, str]] = []
    if settings.get("recheck"):
        found.append((("recheck",), "is not needed in the stage `response`, which reads every token"))
    if settings.get("wait_s"):
        found.append((("wait_s",), "must be 0, because a stopped reply cannot be resumed"))
    if policy.action.name != "steer" and settings.get("otherwise") == "allow":
        found.append((("otherwise",), "must be `block`, because a stopped reply cannot be allowed later"))
    return found


def reply_condition(
    condition: Condition, layer: int, monitor: Monitor, replies: BenignReplies | None, reading: int
) -> tuple[CompiledCondition, Scale]:
    """The condition of a response policy. Raises CalibrationError if the calibration lacks its numbers."""
    raw = raw_reply_threshold(condition, monitor, replies)
    scale = Scale(replies.mean, replies.sd) if replies else Scale()
    fpr = condition.threshold.fpr if isinstance(condition.threshold, FprThreshold) else None
    tail = "upper" if condition.fires == "above" else "lower"
    compiled = CompiledCondition(
        trait=condition.trait,
        layer=layer,
        reading=reading,
        threshold=scale.score(raw),
        raw=raw,
        fires=condition.fires,
        fpr=fpr,
        n=replies.extremes(monitor.key, tail).n if replies and fpr is not None else None,
    )
    return compiled, scale


def drift_condition(
    condition: Condition, layer: int, conversation: Conversation, replies: BenignReplies | None, reading: int
) -> tuple[CompiledCondition, Scale]:
    """The condition of a policy about conversations. Raises CalibrationError without benign replies."""
    reference = conversation.reference
    if reference is None and replies is None:
        missing = f"needs a calibration with benign replies of `{condition.trait}` at this layer"
        raise CalibrationError(f"{missing}; add one, or write `reference: {{mean: ..., sd: ...}}`")
    scale = Scale(reference.mean, reference.sd) if reference else Scale()
    if reference is None and replies is not None:
        scale = Scale(replies.turn_mean, replies.turn_sd)
    sign = 1 if condition.fires == "above" else -1
    alarm = conversation.alarm
    drift = Drift(
        statistic=conversation.statistic, reading=reading, k=conversation.k, weight=conversation.weight
    )
    compiled = CompiledCondition(
        trait=condition.trait, layer=layer, reading=None, threshold=alarm, raw=alarm, drift=drift
    )
    return compiled, Scale(scale.mean, sign * scale.sd)
