"""What a look at a prompt finds. Plain data; notebooks show it as HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from guardrail.types import Array, Decision, Message, Mode, Score

Kind: TypeAlias = Literal["reply", "message", "none"]
"""A reply of the model, a fixed text, or nothing that could be previewed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraitLook:
    """One trait. `score` is read as policies read it, at `layer`; projections if there is no calibration.

    `by_layer`: [layers], `grid`: [layers, tokens shown], NaN at layers that cannot be used. `at_or_above` of
    `n` benign prompts have this score or a higher one, None without a calibration of that layer.
    """

    trait: str
    layer: int
    score: float
    by_layer: Array = field(repr=False)
    grid: Array = field(repr=False)
    at_or_above: int | None = None
    n: int = 0

    @property
    def percentile(self) -> float | None:
        """The share of benign prompts with a lower score, 0 to 100; None if unknown."""
        return None if self.at_or_above is None else 100 * (1 - self.at_or_above / self.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLook:
    """One policy. `scores` are its conditions; empty if it does not apply, and `why_not` says why."""

    id: str
    action: str
    mode: Mode
    scores: tuple[Score, ...] = ()
    fired: bool = False
    why_not: str = ""

    @property
    def would(self) -> str:
        """What it would do, in words."""
        if self.why_not:
            return self.why_not
        if not self.fired:
            return "does not fire"
        return self.action if self.mode == "enforce" else f"would {self.action} ({self.mode})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """A benign prompt with similar scores. `distance` is Euclidean, over the scores of all traits."""

    text: str
    distance: float
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a person would get. `policy` is None for the plain model. Greedy, and cut short."""

    policy: str | None
    action: str
    text: str
    kind: Kind = "reply"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One prompt: its scores by layer and token, what each policy would do, and what it would change.

    `tokens` are the last of the prompt's tokens, without the first `left_out`. `decision` is that of
    `guard.check`. `near` and `previews` are empty if they were not asked for or cannot be had.
    """

    messages: tuple[Message, ...]
    tokens: tuple[str, ...]
    left_out: int
    layers: tuple[int, ...]
    calibrated: bool
    traits: tuple[TraitLook, ...]
    policies: tuple[PolicyLook, ...]
    decision: Decision = field(repr=False)
    audit_id: str
    near: tuple[Near, ...] = ()
    near_of: str = ""
    """Where the prompts in `near` come from."""
    previews: tuple[Preview, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def strongest(self) -> str | None:
        """The trait with the most unusual score, which is shown first."""
        known = [one for one in self.traits if one.score == one.score]
        return max(known, key=lambda one: abs(one.score)).trait if known else None

    @property
    def summary(self) -> str:
        """One sentence: what happens to this prompt."""
        decision = self.decision
        if decision.status != "evaluated":
            return f"The prompt was not evaluated ({decision.error or decision.status}): {decision.action}."
        if decision.action != "allow":
            return f"The policy {decision.policy} fires, and the action is {decision.action}."
        if decision.would_action != "allow":
            return f"The prompt is allowed; shadow policies would {decision.would_action}."
        return "The prompt is allowed, and no policy fires."

    def html(self) -> str:
        """A fragment of HTML for pages that have the style sheet `look.css`."""
        from guardrail.pipeline.look.html import fragment

        return fragment(self)

    def _repr_html_(self) -> str:
        """For notebooks: the same, with its style."""
        from guardrail.pipeline.look.html import alone

        return alone(self)
