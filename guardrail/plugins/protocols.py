"""The interfaces that plugins implement: actions, scorers, rephrasers, judges, methods. No logic."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, cast, runtime_checkable

from pydantic import BaseModel, ConfigDict, ValidationInfo

from guardrail.files.problems import suggest
from guardrail.types import Array, Decision, FailureAction, Message, Ticket, Verdict

Kind = Literal["rephraser", "escalation sink"]


def known_name(name: str, kind: Kind, info: ValidationInfo) -> str:
    """The name. Raises ValueError if the validation context lists names of this kind without this one."""
    context = cast("Mapping[str, Collection[str]]", info.context or {})
    known = context.get(kind)
    if known is not None and name not in known:
        raise ValueError(f"unknown {kind} `{name}`{suggest(name, known)}")
    return name


class ActionConfig(BaseModel):
    """The base of an action's configuration: strict, immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class NoConfig(ActionConfig):
    """For actions without a configuration."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The action answers instead of the model. `ticket` is set if a person will look at the request.

    `by` is set if the text is an answer and no refusal: `person`, or `model:NAME`.
    """

    text: str
    ticket: Ticket | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Evaluate and answer these messages instead; `waive` names policies that a person has lifted.

    An action can only lift the policy that it responds for. `ticket` is the one that the person resolved.
    """

    messages: tuple[Message, ...]
    waive: frozenset[str] = frozenset()
    ticket: Ticket | None = None


@dataclass(frozen=True, slots=True)
class Otherwise:
    """The action gives up and this other action takes over; `reason` says why, in the decision's warnings.

    `failed`: the reason is an error, which the audit record names. `ticket` is the unresolved ticket, if any.
    """

    action: FailureAction
    ticket: Ticket | None = None
    reason: str | None = None
    failed: bool = False


Response: TypeAlias = Answer | Retry | Otherwise
Complete: TypeAlias = Callable[[Sequence[Message]], str]
"""Lets the wrapped model answer these messages without the guard. Use it to rewrite, never to reply."""


@runtime_checkable
class EscalationSink(Protocol):
    """Stores tickets. `open` returns only once the ticket is stored; each ticket is resolved once.

    `answer` is the person's own, in place of the model's. `use` takes up an approval: True once, then False.
    """

    name: str

    def open(self, ticket: Ticket) -> None: ...
    def get(self, ticket_id: str) -> Ticket | None: ...
    def pending(self) -> Sequence[Ticket]: ...
    def resolve(
        self,
        ticket_id: str,
        approve: bool,
        resolver: str,
        note: str | None = None,
        answer: str | None = None,
    ) -> Ticket: ...
    def use(self, ticket_id: str) -> bool: ...


@runtime_checkable
class HoldingSink(Protocol):
    """What an escalation sink may have besides, so that no two people work on one ticket.

    `hold` keeps a pending ticket for one person until a time (UTC, ISO 8601), unless somebody else holds it;
    a time that has passed gives it back. It returns the ticket, which says who holds it. While somebody does,
    `resolve` by others is an error.
    """

    def hold(self, ticket_id: str, holder: str, until: str) -> Ticket: ...


@runtime_checkable
class ClosingSink(Protocol):
    """What an escalation sink may have besides, to be told that the guard is closed."""

    def close(self) -> None: ...


@runtime_checkable
class Rephraser(Protocol):
    """Turns messages that fired a policy into messages worth another try."""

    name: str

    def rephrase(
        self, messages: Sequence[Message], instruction: str, complete: Complete
    ) -> Sequence[Message]: ...


def _nobody(sink: EscalationSink, ticket: Ticket, seconds: float) -> Ticket:
    return ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionContext:
    """What an action may use to respond. `attempt` counts the earlier responses of this policy.

    `client` is who asks, `ticket_id` the ticket that they have, from an earlier request, and `prompt_sha256`
    the prompt that was decided on. `wait` waits for a person, up to so many seconds. `rendered`: the only
    message is a whole prompt, rendered by the chat template.
    """

    decision: Decision
    messages: tuple[Message, ...]
    policy: str
    message: str | None
    attempt: int
    complete: Complete
    sinks: Mapping[str, EscalationSink] = field(default_factory=dict[str, EscalationSink])
    rephrasers: Mapping[str, Rephraser] = field(default_factory=dict[str, Rephraser])
    client: str | None = None
    ticket_id: str | None = None
    prompt_sha256: str = ""
    wait: Callable[[EscalationSink, Ticket, float], Ticket] = _nobody
    rendered: bool = False


@runtime_checkable
class Action(Protocol):
    """An action: `compile` when the policy file is loaded, `respond` after the verdict.

    `strength` ranks it among `allow` 0, `steer` 10, `rephrase` 20, `escalate` 30 and `block` 40. `Config` is
    the pydantic model of its configuration, which a policy file gives under the action's name.
    """

    name: str
    strength: int
    Config: ClassVar[type[BaseModel]]

    def compile(self, config: Any) -> Verdict: ...
    def respond(self, config: Any, context: ActionContext) -> Response: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionInfo:
    """What the policy compiler needs from an action: its strength, and a verdict for its configuration.

    `config` is the pydantic model behind `validate`, used for suggestions and for the JSON Schema.
    """

    strength: int
    validate: Callable[[Mapping[str, object]], BaseModel]
    compile: Callable[[BaseModel], Verdict]
    config: type[BaseModel] | None = None


@runtime_checkable
class Scorer(Protocol):
    """Anything that scores a conversation and is not a linear probe. Raises if it cannot score it."""

    name: str

    def score(self, messages: Sequence[Message]) -> float: ...


COHERENCE = "coherence"
"""The metric for whether a reply makes sense. Every other metric is the name of a trait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRequest:
    """One reply to score for one metric: a trait's name, or COHERENCE.

    `rubric` contains `{question}` and `{answer}`; `ended` says whether the model itself ended the reply.
    """

    metric: str
    rubric: str
    question: str
    answer: str
    ended: bool = True


@runtime_checkable
class Judge(Protocol):
    """Scores replies, many at a time: 0 to 100 for each request, in their order.

    None means that the judge refused; it never means 0. Raises JudgeError if the judge cannot be reached.
    """

    name: str

    def scores(self, requests: Sequence[JudgeRequest]) -> Sequence[float | None]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """The input of an extraction method for one trait at one layer; states are [n, d_model] float32.

    `positive` and `negative` correspond row by row: the same question, with the trait requested or forbidden.
    `neutral` are questions without a system prompt. `others` holds one array per trait that is extracted
    together with this one: its positive prompts. `states` are all prompts, `scores` [n] the mean judged score
    of their replies on this trait, 0 to 100, or NaN if they were not judged for it.

    Labelled prompts (`vectors fit`) come without pairs, neutral questions and scores, but with the weights of
    the rows on each side, [n], which sum to 1, and a `penalty`; None means what the method does by default.
    """

    positive: Array = field(repr=False)
    negative: Array = field(repr=False)
    neutral: Array = field(repr=False)
    others: tuple[Array, ...] = field(repr=False, default=())
    states: Array = field(repr=False)
    scores: Array = field(repr=False)
    positive_weights: Array | None = field(repr=False, default=None)
    negative_weights: Array | None = field(repr=False, default=None)
    penalty: float | None = None


@runtime_checkable
class ExtractionMethod(Protocol):
    """Computes a direction [d_model] from activations. Its sign matters, its length does not.

    `needs_scores`: whether every prompt must be judged for the trait, including those of other traits.
    """

    name: str
    needs_scores: bool

    def direction(self, examples: Examples) -> Array: ...


@runtime_checkable
class LabelledMethod(ExtractionMethod, Protocol):
    """An extraction method that also fits labelled prompts: it respects weights and `Examples.penalty`.

    `penalties` are those worth trying, the strongest first; empty for a method that has none.
    """

    penalties: tuple[float, ...]
