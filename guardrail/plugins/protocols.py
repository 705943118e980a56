"""What plugins provide: the shapes of actions, scorers, rephrasers and sinks. No logic."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, cast, runtime_checkable

from pydantic import BaseModel, ConfigDict, ValidationInfo

from guardrail.files.problems import suggest
from guardrail.types import Array, AuditRecord, Decision, FailureAction, Message, Ticket, Verdict

Kind = Literal["rephraser", "escalation sink"]


def known_name(name: str, kind: Kind, info: ValidationInfo) -> str:
    """The name, or ValueError where the validation context lists this kind and not the name."""
    context = cast("Mapping[str, Collection[str]]", info.context or {})
    known = context.get(kind)
    if known is not None and name not in known:
        raise ValueError(f"unknown {kind} `{name}`{suggest(name, known)}")
    return name


class ActionConfig(BaseModel):
    """The base of an action's configuration: strict, immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class NoConfig(ActionConfig):
    """For actions that need none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The action answers in place of the model. `ticket` is set where a person will look at it."""

    text: str
    ticket: Ticket | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Evaluate and answer these messages instead; `waive` names policies that a person has lifted.

    An action can lift the policy that it responds for, no other; `ticket` is the person's.
    """

    messages: tuple[Message, ...]
    waive: frozenset[str] = frozenset()
    ticket: Ticket | None = None


@dataclass(frozen=True, slots=True)
class Otherwise:
    """The action has run out of what it can do; this one takes over. `ticket` is one that nobody resolved."""

    action: FailureAction
    ticket: Ticket | None = None


Response: TypeAlias = Answer | Retry | Otherwise
Complete: TypeAlias = Callable[[Sequence[Message]], str]
"""Lets the wrapped model answer these messages, unguarded: for rewriting, never for replying."""


@runtime_checkable
class EscalationSink(Protocol):
    """Where tickets go. `open` returns only when the ticket is stored."""

    name: str

    def open(self, ticket: Ticket) -> None: ...
    def get(self, ticket_id: str) -> Ticket | None: ...
    def pending(self) -> Sequence[Ticket]: ...
    def resolve(self, ticket_id: str, approve: bool, resolver: str, note: str | None = None) -> Ticket: ...


@runtime_checkable
class Rephraser(Protocol):
    """Turns messages that fired a policy into messages worth another try."""

    name: str

    def rephrase(
        self, messages: Sequence[Message], instruction: str, complete: Complete
    ) -> Sequence[Message]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionContext:
    """What an action may use to respond. `attempt` counts how often this policy has responded already."""

    decision: Decision
    messages: tuple[Message, ...]
    policy: str
    message: str | None
    attempt: int
    complete: Complete
    sinks: Mapping[str, EscalationSink] = field(default_factory=dict[str, EscalationSink])
    rephrasers: Mapping[str, Rephraser] = field(default_factory=dict[str, Rephraser])


@runtime_checkable
class Action(Protocol):
    """An action: `compile` when the policy file is loaded, `respond` after the verdict.

    `strength` places it among `allow` 0, `steer` 10, `rephrase` 20, `escalate` 30 and `block` 40. `Config`
    is its pydantic model: what stands under the action's name in a policy file.
    """

    name: str
    strength: int
    Config: ClassVar[type[BaseModel]]

    def compile(self, config: Any) -> Verdict: ...
    def respond(self, config: Any, context: ActionContext) -> Response: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionInfo:
    """What compiling needs to know of an action: its place, and how its configuration becomes a verdict.

    `config` is the model that `validate` validates, for suggestions and for the schema of policy files.
    """

    strength: int
    validate: Callable[[Mapping[str, object]], BaseModel]
    compile: Callable[[BaseModel], Verdict]
    config: type[BaseModel] | None = None


@runtime_checkable
class Scorer(Protocol):
    """Anything that scores a conversation and is not a linear probe. Raises to say that it cannot."""

    name: str

    def score(self, messages: Sequence[Message]) -> float: ...


class AuditSettings(BaseModel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False):
    """Where audit records go, and what happens when they cannot be written."""

    jsonl: str | None = None
    sqlite: str | None = None
    text: bool = False
    on_error: Literal["block", "drop"] = "block"


@runtime_checkable
class AuditSink(Protocol):
    """Where audit records go. `decided` and `finished` return only when the record is stored."""

    name: str

    def decided(self, record: AuditRecord) -> None: ...
    def finished(self, record: AuditRecord) -> None: ...
    def close(self) -> None: ...


COHERENCE = "coherence"
"""The metric for whether a reply makes sense, whatever it says; every other metric is a trait's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRequest:
    """One reply to score for one metric: a trait's name, or COHERENCE.

    `rubric` holds `{question}` and `{answer}`; `ended` says whether the model itself stopped.
    """

    metric: str
    rubric: str
    question: str
    answer: str
    ended: bool = True


@runtime_checkable
class Judge(Protocol):
    """Scores replies, many at a time: 0 to 100 for each request, in their order.

    None is a refusal to judge, never 0. Raises JudgeError where the judge cannot be reached.
    """

    name: str

    def scores(self, requests: Sequence[JudgeRequest]) -> Sequence[float | None]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """What an extraction method sees of one trait at one layer; states are [n, d_model] float32.

    `positive` and `negative` correspond row by row: one question, with the trait asked for or forbidden.
    `neutral` are questions without a system prompt. `others` are the positive prompts of the traits that are
    extracted together with this one, an array for each. `states` are all prompts there are, `scores` [n] the
    mean judged score of their replies on this trait, 0 to 100, NaN where they were not judged for it.
    """

    positive: Array = field(repr=False)
    negative: Array = field(repr=False)
    neutral: Array = field(repr=False)
    others: tuple[Array, ...] = field(repr=False, default=())
    states: Array = field(repr=False)
    scores: Array = field(repr=False)


@runtime_checkable
class ExtractionMethod(Protocol):
    """From activations to a direction [d_model]; its length does not matter, its sign does.

    `needs_scores`: whether every prompt has to be judged for the trait, those of other traits too.
    """

    name: str
    needs_scores: bool

    def direction(self, examples: Examples) -> Array: ...
