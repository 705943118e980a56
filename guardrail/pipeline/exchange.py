"""One request on its way through the guard: what travels from admission to the audited reply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from time import perf_counter
from typing import TYPE_CHECKING

from guardrail.engines import Completion
from guardrail.pipeline.cancellation import Cancellation, current
from guardrail.pipeline.request import Request
from guardrail.pipeline.tool_calls import Parsed, ToolReader
from guardrail.types import Choice, Decision, Facts, Message, Ticket, Timing, TokenLogprob, ToolCall

if TYPE_CHECKING:
    from guardrail.policy.loading import ActivePolicies


RAW = "the prompt is raw text, and thresholds are made for what the chat template renders"
TURNS = "the prompt's turns are unknown: `min_turns` and `last_role` of policies count as met"
UNUSED = (
    "the ticket that came with the request made no difference: no policy asked for it, it was used before, "
    "or it is not for this client, policy and prompt"
)


@dataclass(kw_only=True)
class Exchange:
    """A request, the policies that were active when it came, and how far it has got.

    Only the caller's thread changes it. `messages` and `facts` start as the request's; rephrasing changes the
    messages, a person's approval the facts, and the request is evaluated again.
    """

    request: Request
    policies: ActivePolicies
    messages: tuple[Message, ...] = ()
    facts: Facts = field(default_factory=Facts)
    decisions: list[Decision] = field(default_factory=list[Decision])
    """One for each prompt that was evaluated for this request."""
    attempts: Counter[str] = field(default_factory=Counter[str])
    """How often each policy's action has responded."""
    warnings: tuple[str, ...] = ()
    room: int = 1
    """The tokens that a prompt has to leave for the reply."""
    prompt_tokens: int = 0
    timing: Timing = field(default_factory=Timing)
    completion: Completion | None = None
    reader: ToolReader | None = None
    """Finds calls in replies to a request with tools."""
    ticket_id: str | None = None
    reviewer: str | None = None
    """Who has decided on the ticket, if anyone has."""
    lifted: tuple[str, ...] = ()
    """The policies that a person has lifted for this prompt."""
    error: str | None = None
    """Why an action failed, if one has."""
    answered_by: str | None = None
    """Who has answered in the model's place, if anyone has."""
    cancellation: Cancellation = field(default_factory=current)
    closed: bool = False
    """Whether the audit record has its outcome."""

    @classmethod
    def of(cls, request: Request, policies: ActivePolicies) -> Exchange:
        """The exchange that begins with this request."""
        begun = cls(request=request, policies=policies, messages=request.messages, facts=request.facts)
        if request.raw is not None:
            begun.warn(RAW)
        if request.facts.last_role is None and policies.plan.asks_about_turns:
            begun.warn(TURNS)
        return begun

    @property
    def id(self) -> str:
        """The audit id."""
        return self.request.id

    @property
    def decision(self) -> Decision:
        """The decision on the latest prompt, with every warning since."""
        latest = self.decisions[-1]
        return replace(latest, warnings=tuple(dict.fromkeys([*latest.warnings, *self.warnings])))

    @property
    def final(self) -> Decision:
        """The decision on the reply if there is one, else that on the prompt."""
        reply_decision = self.completion.reply_decision if self.completion else None
        return reply_decision or self.decisions[-1]

    def choices(self, text: str) -> tuple[Choice, *tuple[Choice, ...]]:
        """The replies that are handed out; `text` is the first of them, or an action's answer."""
        if self.completion is None or self.final.stops:
            return (Choice(text=text, new_tokens=self.completion.new_tokens if self.completion else 0),)
        first, *others = self.completion, *self.completion.others
        return (self._choice(first, text), *(self._choice(one, one.text) for one in others))

    def _choice(self, one: Completion, text: str) -> Choice:
        parsed = self.reader.parsed(text) if self.reader else Parsed(text)
        finish = one.finish or ("length" if one.new_tokens >= self.room else "stop")
        return Choice(
            text=parsed.text,
            finish=finish,
            new_tokens=one.new_tokens,
            logprobs=_within(one.logprobs, parsed.text) if parsed.calls else one.logprobs,
            tool_calls=parsed.calls,
        )

    def warn(self, text: str) -> None:
        """Add a warning that the decision will carry."""
        self.warnings = tuple(dict.fromkeys([*self.warnings, text]))

    def decided(self, decision: Decision, timing: Timing) -> None:
        """Take the decision on the prompt as it is now."""
        self.decisions.append(replace(decision, warnings=(*decision.warnings, *self.warnings)))
        self.timing = timing

    def gave_way(self, action: str) -> None:
        """The action of the latest decision was not done; this took over."""
        completion = self.completion
        if (
            completion is not None
            and completion.reply_decision is not None
            and completion.reply_decision.stops
        ):
            said = replace(completion.reply_decision, otherwise=action)
            self.completion = replace(completion, reply_decision=said)
        else:
            self.decisions[-1] = replace(self.decisions[-1], otherwise=action)

    def retry(self, messages: Sequence[Message], waive: frozenset[str]) -> None:
        """Other messages, or the same with policies lifted, for another evaluation."""
        self.messages = tuple(messages)
        if waive:
            self.facts = replace(self.facts, waived=self.facts.waived | waive)

    def take(self, ticket: Ticket | None) -> None:
        """Keep the ticket that an action has opened, for the reply and the record to name."""
        if ticket is not None:
            self.ticket_id, self.reviewer = ticket.id, ticket.resolver

    def warn_of_ticket(self) -> None:
        """Warn of a ticket that the caller gave in vain."""
        if not self.lifted and self.request.ticket not in (None, self.ticket_id):
            self.warn(UNUSED)

    def total(self) -> Timing:
        """The timing, with the milliseconds since the request came."""
        return replace(self.timing, total=(perf_counter() - self.request.start) * 1e3)

    def history(self, text: str, calls: tuple[ToolCall, ...] = ()) -> tuple[Message, ...]:
        """What to append the next turn to: with the reply, or without the turn that was refused."""
        given = self.request.messages
        if self.final.stops and self.answered_by is None:
            last = max((i for i, m in enumerate(given) if m.role == "user"), default=0)
            return given[:last]
        return (*given, Message("assistant", text, calls))


def _within(logprobs: Sequence[TokenLogprob], text: str) -> tuple[TokenLogprob, ...]:
    """Those of the tokens that make up this beginning of a reply."""
    ends = accumulate(len(one.token) for one in logprobs)
    return tuple(one for one, end in zip(logprobs, ends, strict=True) if end <= len(text))
