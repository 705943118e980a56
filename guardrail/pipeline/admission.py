"""Which exchanges of a batch can be evaluated: rendered, cut if policies allow it, or refused."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from guardrail.engines import Engine, Prompt, RawEngine, SharingEngine
from guardrail.errors import EvaluationError, PromptError, RequestError, UnsupportedGeneration, outline
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.request import BEGUN, Request
from guardrail.policy.decide import unsupported
from guardrail.types import Decision, Message, Position

WIDEST = 32
"""More characters than a token stands for on average, in any text that people write."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A batch, each exchange with its prompt, or with the decision that was made without one."""

    batch: Sequence[Exchange]
    outcomes: Sequence[Prompt | Decision]

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts of `admitted`."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Prompt)]

    @property
    def admitted(self) -> list[Exchange]:
        """The exchanges that have a prompt."""
        pairs = zip(self.batch, self.outcomes, strict=True)
        return [exchange for exchange, outcome in pairs if isinstance(outcome, Prompt)]

    def sharing(self, engine: Engine) -> Admission:
        """The exchanges that may be in one batch with the first prompt. Those left out keep their turn."""
        if not isinstance(engine, SharingEngine) or len(self.prompts) < 2:
            return self
        places = [i for i, outcome in enumerate(self.outcomes) if isinstance(outcome, Prompt)]
        room = max(exchange.room for exchange in self.batch)
        first = engine.together([len(prompt.ids) for prompt in self.prompts], room)[0]
        left_out = set(places) - {places[i] for i in first}
        kept = [i for i in range(len(self.batch)) if i not in left_out]
        return Admission([self.batch[i] for i in kept], [self.outcomes[i] for i in kept])

    def merged(self, decided: Sequence[Decision]) -> list[Decision]:
        """A decision for every exchange, given those on `admitted`."""
        found = iter(decided)
        return [next(found) if isinstance(outcome, Prompt) else outcome for outcome in self.outcomes]


def admit(engine: Engine, batch: Sequence[Exchange], room: int) -> Admission:
    """Render a batch, leaving `room` tokens for replies.

    Raises PromptError for a prompt that does not fit and that policies do not allow to be cut.
    """
    for exchange in batch:
        exchange.room = room
    return Admission(batch, [_outcome(engine, exchange) for exchange in batch])


def unread(exchange: Exchange, reason: str | None) -> Decision | None:
    """What policies say about content that cannot be read; None if it is evaluated without it."""
    if reason is None:
        return None
    decision = unsupported(exchange.policies.plan, exchange.facts, reason)
    if decision.stops:
        return decision
    exchange.warn(f"evaluated all the same, as policies allow: {reason}")
    return None


def _outcome(engine: Engine, exchange: Exchange) -> Prompt | Decision:
    # an action may have changed the messages, also into ones that end in a reply
    begun = BEGUN if exchange.messages[-1].role == "assistant" else None
    if (decision := unread(exchange, exchange.request.unreadable or begun)) is not None:
        return decision
    prompt = fitted(engine, exchange, exchange.messages)
    if (decision := unread(exchange, prompt.unread)) is not None:
        return decision
    exchange.prompt_tokens = len(prompt.ids)
    return prompt


def fitted(engine: Engine, exchange: Exchange, messages: Sequence[Message]) -> Prompt:
    """These messages as a prompt beside which the reply has room. Raises PromptError."""
    _check_length(engine, exchange, messages)
    prompt = _rendered(engine, exchange, messages)
    limit = engine.max_tokens - min(exchange.room, engine.max_tokens // 2)
    return _cut(exchange, prompt, limit) if len(prompt.ids) > limit else prompt


def _check_length(engine: Engine, exchange: Exchange, messages: Sequence[Message]) -> None:
    """Raises PromptError for a text that cannot fit, which a tokenizer would work on for seconds."""
    length = sum(map(_characters, messages))
    if length > engine.max_tokens * WIDEST and not _may_be_cut(exchange):
        raise PromptError(
            f"the prompt has {length} characters; the model reads {engine.max_tokens} tokens at most"
        )


def _characters(message: Message) -> int:
    return len(message.content) + sum(len(call.arguments) for call in message.tool_calls)


def _rendered(engine: Engine, exchange: Exchange, messages: Sequence[Message]) -> Prompt:
    positions = exchange.policies.plan.positions - {"last"}
    try:
        prompt = _prompt(engine, exchange.request, messages, positions)
    except (RequestError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise EvaluationError(f"the messages could not be rendered: {outline(error)}") from error
    if not isinstance(prompt, Prompt):  # pyright: ignore[reportUnnecessaryIsInstance]
        # anything else would be taken for a decision
        raise EvaluationError("the engine did not render the messages as a prompt")
    return prompt


def _prompt(
    engine: Engine, request: Request, messages: Sequence[Message], positions: Collection[Position]
) -> Prompt:
    if request.raw is None:
        return engine.render(messages, request.tools, *([positions] if positions else []))
    if not isinstance(engine, RawEngine):
        raise UnsupportedGeneration("this engine takes messages only, no raw text")
    return engine.raw(request.raw, positions)


def _cut(exchange: Exchange, prompt: Prompt, limit: int) -> Prompt:
    """The end of a prompt that is too long, if every policy that is enforced allows to cut it."""
    dropped = len(prompt.ids) - limit
    if not _may_be_cut(exchange):
        raise PromptError(
            f"the prompt has {len(prompt.ids)} tokens, {dropped} more than fit beside the reply"
        )
    found = prompt.tail(dropped)
    exchange.warn(f"truncated: the first {dropped} tokens were dropped, only the rest was evaluated")
    return found


def _may_be_cut(exchange: Exchange) -> bool:
    live = exchange.policies.plan.live(exchange.facts).rules
    rules = [rule for rule, mode in live if mode == "enforce"] or [rule for rule, _ in live]
    return bool(rules) and all(rule.settings.on_truncate != "error" for rule in rules)
