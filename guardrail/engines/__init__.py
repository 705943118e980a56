"""What an engine is: the model side of the guard. Implementations are the only importers of nnsight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from guardrail.policy.decide_reply import Observed, Watch
from guardrail.policy.plan import Plan
from guardrail.types import Decision, Fingerprint, Message, Sampling, Timing

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids of a rendered conversation, up to where the reply begins."""

    ids: tuple[int, ...]


class Evaluator(Protocol):
    """Decides on the rows of one batch. `decide` is called once per row, between prompt and first token.

    `by_plan`: whether it decides as `evaluate` does for a request without tags, and nobody has another say.
    `watch` says what to follow of a row's reply, `respond` decides on what was observed so far; both are
    called only where the plan has `reply_probes`.
    """

    @property
    def by_plan(self) -> bool: ...
    def decide(self, row: int, readings: Sequence[float]) -> Decision: ...
    def recheck(self, row: int, decision: Decision, readings: Sequence[float], layer: int) -> Decision: ...
    def watch(self, row: int) -> Watch: ...
    def respond(self, row: int, observed: Observed) -> Decision: ...


@dataclass(frozen=True, slots=True)
class Scored:
    """Every row of the batch is decided; nothing has been sampled."""

    decisions: tuple[Decision, ...]
    timing: Timing


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a reply, as text."""

    text: str


Event: TypeAlias = Scored | Token
Emit: TypeAlias = Callable[[Event], None]
"""Receives events as they happen, on the worker's thread. May raise to cancel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The end of one row: its decision, the text (empty where it was stopped), and what was counted.

    `reply_decision` is the decision on the reply, if policies followed it; if it stops the reply, text and
    tokens are those that were out by then. `turn`: means of the plan's `reply_probes`, if the evaluator
    wants them.
    """

    decision: Decision
    text: str
    new_tokens: int
    steered_passes: int
    reply_decision: Decision | None = None
    turn: tuple[float, ...] | None = None


class Refused(Exception):
    """The model's own `generate` refused its arguments, before any prompt was read."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


class Engine(Protocol):
    """Generation under a plan. Called from one thread at a time, the guard's worker."""

    @property
    def model(self) -> Any: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def fingerprint(self) -> Fingerprint: ...
    @property
    def max_tokens(self) -> int: ...
    def accept(self, plan: Plan) -> None:
        """Raises ModelError for a plan that this engine cannot carry out."""
        ...

    def render(self, messages: Sequence[Message]) -> Prompt: ...
    def check(self, prompts: Sequence[Prompt], plan: Plan, evaluator: Evaluator, emit: Emit) -> None: ...
    def reply(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        evaluator: Evaluator,
        sampling: Sampling,
        emit: Emit,
        stream: bool = False,
    ) -> Sequence[Completion]: ...
    def close(self) -> None: ...


Component: TypeAlias = Literal["resid", "attn", "mlp"]
Positions: TypeAlias = "Literal['all', 'last'] | Tensor"


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the model: layer 1 to L, or 0 with `resid` for the embedding output."""

    layer: int
    component: Component = "resid"


@dataclass(frozen=True, slots=True)
class Edit:
    """Put `value` at a site: [batch, d_model] or [d_model] at one position, or at every position (None)."""

    site: Site
    value: Tensor
    position: int | None = None


class Activations(Protocol):
    """Access to activations. An engine that has none raises ModelError."""

    def read(
        self, ids: Tensor, mask: Tensor | None, sites: Sequence[Site], positions: Positions = "last"
    ) -> Mapping[Site, Tensor]: ...
    def patch(self, ids: Tensor, mask: Tensor | None, edits: Sequence[Edit]) -> Tensor: ...
