"""What an engine is: the model side of the guard, as protocols and the values that go through them.

Every engine is an `Engine`: it renders, decides and replies. Reading activations and standing in for
`model.generate` are protocols of their own, because an engine may lack them; ask with `isinstance`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from guardrail.engines.events import Completion as Completion
from guardrail.engines.events import Continuation as Continuation
from guardrail.engines.events import Emit as Emit
from guardrail.engines.events import Event as Event
from guardrail.engines.events import Scored as Scored
from guardrail.engines.events import Token as Token
from guardrail.errors import ModelError, PromptError, UnsupportedGeneration
from guardrail.policy.decide_reply import Observed, Watch
from guardrail.policy.plan import Plan
from guardrail.types import Array, Decision, Facts, Fingerprint, Message, Position, RawPrompt, Sampling

Span: TypeAlias = tuple[int, int]
"""A run of tokens, [start, end)."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids of a rendered conversation, up to where the reply begins.

    `unread`: what the chat template left out of it, if anything. `spans`: where the tokens of each position
    that was asked for are; no span: there is nothing to read (only for `tool_mean`).
    """

    ids: tuple[int, ...]
    unread: str | None = None
    spans: Mapping[Position, tuple[Span, ...]] = field(default_factory=dict[Position, tuple[Span, ...]])

    def tail(self, dropped: int) -> Prompt:
        """The prompt without its first tokens. Raises PromptError if some of them are to be read."""
        if cut := [p for p, spans in self.spans.items() if any(start < dropped for start, _ in spans)]:
            raise PromptError(f"a policy reads `{cut[0]}`, and some of its tokens would be cut off")
        moved = {p: tuple((a - dropped, b - dropped) for a, b in spans) for p, spans in self.spans.items()}
        return replace(self, ids=self.ids[dropped:], spans=moved)


class Evaluator(Protocol):
    """Decides on the rows of one batch. `decide` is called once per row, between prompt and first token.

    `by_plan`: whether it decides as `policy.decide` does for a request without tags, with no plugin involved.
    `facts`: what else than activations the plan decides on, for engines that decide elsewhere first.
    `watch` says what to follow of a row's reply, `respond` decides on what was observed so far; both are
    called only if the plan has `reply_probes`. `cancelled`: nobody waits for the reply any more; an
    engine asks before every forward pass, and leaves with a CancelledError. `begun` is called by engines that
    let a batch wait for others: the time limit counts from there.
    """

    @property
    def by_plan(self) -> bool: ...
    @property
    def cancelled(self) -> bool: ...
    def begun(self, waited_s: float) -> None: ...
    def facts(self, row: int) -> Facts: ...
    def decide(self, row: int, readings: Sequence[float]) -> Decision: ...
    def recheck(self, row: int, decision: Decision, readings: Sequence[float], layer: int) -> Decision: ...
    def watch(self, row: int) -> Watch: ...
    def respond(self, row: int, observed: Observed) -> Decision: ...


class Refused(Exception):
    """The model's own `generate` refused its arguments, before any prompt was read."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


class Engine(Protocol):
    """Generation under a plan. `check` and `reply` are called from one thread at a time, the guard's worker,
    unless it is a `ConcurrentEngine`.

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

    @property
    def positions(self) -> frozenset[Position]:
        """The positions whose states it reads: `last`, and means over tokens only if all of them are seen.

        An engine that computes a prompt in pieces, or skips what a cache holds, has to keep sums over them
        to give a mean. Policies that need another position are refused when they are loaded.
        """
        ...

    def accept(self, plan: Plan) -> None:
        """Raises ModelError for a plan that this engine cannot carry out."""
        ...

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        positions: Collection[Position] = (),
    ) -> Prompt:
        """The prompt's ids. A last turn of the assistant is continued. `positions`: whose spans to find.

        Raises PromptError if the chat template refuses the messages, or does not know tools, and if the
        tokens of a position cannot be found.
        """
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
class RawEngine(Engine, Protocol):
    """An engine that also takes prompts which no chat template renders."""

    def raw(self, prompt: RawPrompt, positions: Collection[Position] = ()) -> Prompt:
        """The prompt's ids, with the spans of these positions. Raises PromptError as `render`."""
        ...


@runtime_checkable
class ConcurrentEngine(Engine, Protocol):
    """An engine that batches what several threads ask at the same time.

    It tells the evaluator when it begins (`begun`), because a call may first wait for those of others.
    """

    @property
    def concurrency(self) -> int:
        """How many threads may call `check` and `reply` at once."""
        ...


@runtime_checkable
class SharingEngine(Protocol):
    """An engine that may not have every prompt in one batch: some would change how others are read."""

    def together(self, lengths: Sequence[int], room: int) -> Sequence[Sequence[int]]:
        """Places of prompts of these lengths that may be in one batch, with `room` tokens for each reply."""
        ...


@runtime_checkable
class ChangingEngine(Engine, Protocol):
    """An engine around a model that others can change while it is guarded.

    `accept` is told of a plan that was compiled for what `identify` last found, and makes that the model
    which requests are held to.
    """

    def change(self) -> str | None:
        """What has changed in the model, in words. Called for every request; takes some 20 us."""
        ...

    def identify(self) -> Fingerprint:
        """The fingerprint of the model as it is now. Raises ModelError if it can no longer be guarded."""
        ...


@runtime_checkable
class SamplingEngine(Protocol):
    """An engine that knows options of sampling beyond those that every engine knows (`Sampling.extras`)."""

    @property
    def sampling_options(self) -> frozenset[str]: ...


def sampling_options(engine: Engine) -> frozenset[str]:
    """The options that an engine knows besides those that every engine knows."""
    return engine.sampling_options if isinstance(engine, SamplingEngine) else frozenset()


def check_sampling(engine: Engine, sampling: Sampling) -> None:
    """Raises UnsupportedGeneration for an option that the engine would not honour."""
    if missing := sorted(sampling.extras - sampling_options(engine)):
        raise UnsupportedGeneration(f"this engine does not know the option `{missing[0]}`")


def accept(engine: Engine, plan: Plan) -> None:
    """Let the engine accept a plan. Raises ModelError if it does not read all that the plan needs."""
    # an engine that was made before there were other positions has the last one
    given: frozenset[Position] = getattr(engine, "positions", frozenset({"last"}))
    if missing := sorted(plan.positions - given):
        raise ModelError(
            f"this engine does not read {', '.join(f'`{one}`' for one in missing)} of this model, which the "
            f"vector file asks for; it reads {', '.join(f'`{one}`' for one in sorted(given))}"
        )
    engine.accept(plan)


def identify(engine: Engine) -> Fingerprint:
    """The fingerprint of an engine's model as it is now."""
    return engine.identify() if isinstance(engine, ChangingEngine) else engine.fingerprint


@runtime_checkable
class ReadingEngine(Engine, Protocol):
    """An engine that also gives access to activations, outside of any guard."""

    def encode(self, text: str) -> Sequence[int]:
        """Token ids of plain text, without special tokens."""
        ...

    def hidden_states(
        self, prompt: Prompt, layers: Sequence[int], position: Position | Literal["all"] = "last"
    ) -> Mapping[int, Array]:
        """The residual stream after each layer: [tokens, d_model] for `all`, else [d_model].

        NaN if the prompt, rendered with this position, has nothing to read there.
        """
        ...


class Generated(Protocol):
    """The result of one call of `generate`. `completions` holds the rows that were answered."""

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

    def unread(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        """The names of arguments that hold content which policies cannot read, such as `pixel_values`."""
        ...

    def hidden(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        """The names of arguments that hold text which the model reads and scorers do not see: full caches."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        ...

    def generate(
        self, plan: Plan, evaluator: Evaluator, emit: Emit, arguments: Mapping[str, Any]
    ) -> Generated:
        """`model.generate(**arguments)` under guard. Raises UnsupportedGeneration and PromptError."""
        ...

    def intercept(self, ask: Callable[[str], Callable[..., Any] | None]) -> None:
        """From now on, ask before a generating method of the model's own is called, by its name.

        What is returned is called instead, with keyword arguments; None lets the method run.
        """
        ...

    def assemble(
        self, arguments: Mapping[str, Any], generated: Generated | None, answers: Mapping[int, str]
    ) -> Any:
        """What `generate` returns for all rows; a row with an answer is prompt, answer, end of sequence."""
        ...
