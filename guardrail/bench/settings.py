"""The settings of a run, checked before any long work begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from guardrail.bench.alternatives import ALTERNATIVES
from guardrail.bench.couple import Policies
from guardrail.bench.goals import Goal
from guardrail.bench.memory import GIB, Sizes, available
from guardrail.bench.pairs import PAIRS, WARM_UP
from guardrail.bench.results import Point
from guardrail.bench.second_model import SECONDS
from guardrail.errors import ConfigError

Verdict = Literal["allow", "steer", "block"]
VERDICTS: tuple[Verdict, ...] = ("allow", "steer", "block")
GATED = ("first token", "per token")
"""The metrics that the gates judge: those of allowed prompts for which a user waits."""
AGAINST = (*ALTERNATIVES, *SECONDS)
HEADROOM = 1.1
"""A safety factor: allocators and libraries need more memory than the tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run. The first prompt length and batch size are the base; the others are swept one at a time."""

    model: str
    policies: Policies
    device: str = "cpu"
    prompts: Sequence[int] = (128,)
    batches: Sequence[int] = (1,)
    policy_counts: Sequence[int] = ()
    new_tokens: int = 32
    cases: Sequence[Verdict] = VERDICTS
    against: Sequence[str] = ()
    pairs: int = PAIRS
    warm_up: int = WARM_UP
    gate: Goal | None = field(default=None)

    def __post_init__(self) -> None:
        numbers = (*self.prompts, *self.batches, *self.policy_counts, self.pairs)
        if not self.prompts or not self.batches or min(numbers) < 1:
            raise ConfigError("prompt lengths, batch sizes, numbers of policies and pairs must be at least 1")
        if self.new_tokens < 2:
            raise ConfigError("a time per token needs at least 2 new tokens")
        if self.gate is not None and "allow" not in self.cases:
            raise ConfigError("the gates judge allowed prompts: add `allow` to the cases")
        _known("case", self.cases, VERDICTS)
        _known("alternative", self.against, AGAINST)

    def goal(self, case: str, metric: str) -> Goal | None:
        """The gate, if it judges this case and metric."""
        return self.gate if case == "allow" and metric in GATED else None

    def largest(self) -> Point:
        """The point that needs the most memory."""
        points = [Point(prompt, self.batches[0], 1) for prompt in self.prompts]
        points += [Point(self.prompts[0], batch, 1) for batch in self.batches]
        return max(points, key=lambda point: point.prompt * point.batch)


def _known(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ConfigError(f"unknown {what} `{unknown[0]}`; available: {', '.join(known)}")


def copies(settings: Settings, sizes: Sizes) -> int:
    """2 if a bare copy fits next to the guarded model, else 1. Raises ConfigError if not even one fits."""
    tokens = max(settings.prompts) + settings.new_tokens
    if sizes.longest is not None and tokens > sizes.longest:
        raise ConfigError(
            f"{settings.model} takes up to {sizes.longest} tokens; the longest prompt and reply have {tokens}"
        )
    base = Point(settings.prompts[0], settings.batches[0], 1)
    one = HEADROOM * (sizes.weights + sizes.working(base, settings.new_tokens))
    free = available(settings.device)
    if one > free:
        raise ConfigError(
            f"not enough memory: {settings.model} needs about {one / GIB:.1f} GiB on {settings.device} "
            f"at {base.prompt} tokens and batch {base.batch}, but {free / GIB:.1f} GiB are free"
        )
    largest = sizes.working(settings.largest(), settings.new_tokens)
    return 2 if HEADROOM * (2 * sizes.weights + largest) <= free else 1


def too_large(settings: Settings, sizes: Sizes, point: Point) -> str:
    """Why a point does not fit into the memory left by the loaded models; empty if it fits."""
    needed, free = HEADROOM * sizes.working(point, settings.new_tokens), available(settings.device)
    if needed <= free:
        return ""
    return f"too large: needs about {needed / GIB:.1f} GiB more, but {free / GIB:.1f} GiB are free"


def around(
    base: Point, prompts: Sequence[int] = (), batches: Sequence[int] = (), policies: Sequence[int] = ()
) -> tuple[Point, ...]:
    """The base first, then each factor's other values, with the other two factors as in the base."""
    points = [base]
    points += [Point(prompt, base.batch, base.policies) for prompt in prompts]
    points += [Point(base.prompt, batch, base.policies) for batch in batches]
    points += [Point(base.prompt, base.batch, count) for count in policies]
    return tuple(dict.fromkeys(points))
