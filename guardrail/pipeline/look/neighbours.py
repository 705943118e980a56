"""Benign prompts whose scores are nearest to a prompt's. Their scores are kept: only the first look waits."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from guardrail.files.records import prompt_sha256
from guardrail.pipeline.look.results import Near
from guardrail.policy.loading import ActivePolicies
from guardrail.types import Array, Message

MOST, SHOWN, KEPT = 256, 5, 2048
DEMO = "drawn as the demo's calibration prompts were"
DEMO_SEED, DEMO_COUNT = 21, 100
Score = Callable[[Sequence[Message]], Array]


@dataclass(slots=True)
class Gauge:
    """Scores of prompts, by the prompt and what they were scored with. Bounded; thread-safe."""

    _known: OrderedDict[tuple[str, ...], Array] = field(default_factory=OrderedDict[tuple[str, ...], Array])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def scores(self, policies: ActivePolicies, messages: Sequence[Message], score: Score) -> Array:
        """[traits]: the scores of a prompt, from memory if they are known."""
        plan = policies.plan
        key = (prompt_sha256(messages), plan.policy_sha256, plan.vectors_sha256, plan.calibration_sha256)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        found = score(messages)
        with self._lock:
            self._known[key] = found
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return found


def nearest(
    policies: ActivePolicies, own: Array, prompts: Sequence[Sequence[Message]], gauge: Gauge, score: Score
) -> tuple[Near, ...]:
    """The nearest of the first `MOST` prompts, by the Euclidean distance of their scores [traits]."""
    found = [(one, gauge.scores(policies, one, score)) for one in prompts[:MOST]]
    near = [(float(np.linalg.norm(np.nan_to_num(scores - own))), one, scores) for one, scores in found]
    near.sort(key=lambda item: item[0])
    return tuple(
        Near(text=shown(one), distance=distance, scores=tuple(map(float, scores)))
        for distance, one, scores in near[:SHOWN]
    )


def of_the_demo(policies: ActivePolicies) -> Sequence[Sequence[Message]]:
    """Prompts of the demo's calibration, if that is the calibration in force; else none."""
    from guardrail.demo import material

    if policies.calibration is None or policies.calibration.population != material.POPULATION:
        return []
    drawn = material.benign(DEMO_SEED, DEMO_COUNT, "train", "validation")
    return [[Message(turn["role"], turn["content"]) for turn in one.messages] for one in drawn]  # type: ignore[arg-type]


def shown(messages: Sequence[Message]) -> str:
    """A conversation as one line."""
    return " / ".join(f"{m.role}: {m.content}" if m.role != "user" else m.content for m in messages)
