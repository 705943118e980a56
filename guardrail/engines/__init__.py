"""What an engine is: the model side of the guard, as protocols and the values that go through them.

Every engine is an `Engine`: it renders, decides and replies. Reading activations and standing in for
`model.generate` are protocols of their own, because an engine may lack them; ask with `isinstance`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from guardrail.policy.decide_reply import Observed, Watch
from guardrail.policy.plan import Plan
from guardrail.types import Array, Decision, Fingerprint, Message, Sampling, Timing


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids of a rendered conversation, up to where the reply begins."""

    ids: tuple[int, ...]


class Evaluator(Protocol):
    """Decides on the rows of one batch. `decide` is called once per row, between prompt and first token.

    `by_plan`: whether it decides as `policy.decide` does for a request without tags, with no plugin involved.
    `watch` says what to follow of a row's reply, `respond` decides on what was observed so far; both are
    called only if the plan has `reply_probes`.
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
    """The end of one row: its decision, the text (empty if it was stopped), and what was counted.

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

    @property
    def stopped(self) -> Decision | None:
        """The decision that ended the reply before the model did; None if there was none."""
        decision = self.reply_decision
        return decision if decision is not None and decision.stops else None


@dataclass(frozen=True, slots=True)
class Continuation:
    """What an unguarded model wrote: text, tokens (with the end token, if any), and whether it ended."""

    text: str
    ids: tuple[int, ...]
    ended: bool


class Refused(Exception):
    """The model's own `generate` refused its arguments, before any prompt was read."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


class Engine(Protocol):
    """Generation under a plan. `check` and `reply` are called from one thread at a time, the guard's worker.

    Both emit `Scored` once, before anything is sampled. An engine that decides elsewhere (in another
    process, say) may ship the plan there: a plan is data, and so is a decision.
    """

    @property
    def model(self) -> Any: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def fingerprint(self) -> Fingerprint: ...
    @property
    def max_tokens(self) -> int:
        """The longest sequence that the model takes."""
        ...

    def accept(self, plan: Plan) -> None:
        """Raises ModelError for a plan that this engine cannot carry out."""
        ...

    def render(self, messages: Sequence[Message]) -> Prompt:
        """The prompt's ids. Raises PromptError if the chat template refuses the messages."""
        ...

    def check(self, prompts: Sequence[Prompt], plan: Plan, evaluator: Evaluator, emit: Emit) -> None:
        """Decide on a batch and generate nothing."""
        ...

    def reply(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        evaluator: Evaluator,
        sampling: Sampling,
        emit: Emit,
        stream: bool = False,
    ) -> Sequence[Completion]:
        """Decide on a batch and answer the rows that go on. `stream` (one row) emits text as it comes."""
        ...

    def close(self) -> None:
        """Take everything off the model again."""
        ...


@runtime_checkable
class ReadingEngine(Engine, Protocol):
    """An engine that gives its activations away, outside of any guard."""

    def encode(self, text: str) -> Sequence[int]:
        """Token ids of plain text, without special tokens."""
        ...

    def hidden_states(
        self, prompt: Prompt, layers: Sequence[int], position: Literal["last", "all"] = "last"
    ) -> Mapping[int, Array]:
        """The residual stream after each layer: [d_model] for `last`, [tokens, d_model] for `all`."""
        ...


class Generated(Protocol):
    """What came of one call of `generate`. `completions` has the prompts that went on, by row."""

    @property
    def completions(self) -> Mapping[int, Completion]: ...
    @property
    def output(self) -> Any: ...


@runtime_checkable
class GeneratingEngine(Engine, Protocol):
    """An engine that stands in for the model's own `generate`, with its arguments and its return value."""

    def prompts(self, arguments: Mapping[str, Any]) -> Sequence[Prompt]:
        """The prompts in the arguments, without padding. Raises PromptError if there are none."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        ...

    def generate(
        self, plan: Plan, evaluator: Evaluator, emit: Emit, arguments: Mapping[str, Any]
    ) -> Generated:
        """`model.generate(**arguments)` under guard. Raises UnsupportedGeneration and PromptError."""
        ...

    def assemble(
        self, arguments: Mapping[str, Any], generated: Generated | None, answers: Mapping[int, str]
    ) -> Any:
        """What `generate` returns for all rows; a row with an answer is prompt, answer, end of sequence."""
        ...
