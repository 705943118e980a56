"""From what a caller hands in to a request: messages checked, facts gathered. Knows no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal, TypeAlias

from guardrail.errors import PromptError
from guardrail.files.records import is_text, new_id, prompt_sha256, utc_now
from guardrail.pipeline.messages import Tool, checked_tools, message
from guardrail.types import Facts, Message, MessageLike, RawPrompt

BEGUN = "the last turn is a reply that has begun, and thresholds are made for where a reply begins"
Kind: TypeAlias = Literal["chat", "stream", "check", "ruling", "generate"]
Talk: TypeAlias = tuple[str | None, str]
"""A conversation: its client, and the id that the client calls it by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as the caller made it.

    `messages` is a single message that holds the whole prompt if `kind` is `generate`. `unreadable` says what
    in the messages is not text. `named`: whether the caller gave the conversation's id. `raw`: the prompt, if
    no chat template renders it. `client` is who asks, `ticket` a ticket that they got for an earlier request.
    """

    kind: Kind
    messages: tuple[Message, ...]
    facts: Facts
    tools: tuple[Tool, ...] = ()
    unreadable: str | None = None
    named: bool = False
    raw: RawPrompt | None = None
    client: str | None = None
    ticket: str | None = None
    id: str = field(default_factory=new_id)
    time: str = field(default_factory=utc_now)
    start: float = field(default_factory=perf_counter)

    @property
    def talk(self) -> Talk | None:
        """Whose conversation it is, if the caller gave its id: others may have one of the same id."""
        return (self.client, self.facts.conversation or "") if self.named else None


def request(
    kind: Kind,
    messages: Sequence[MessageLike] | str | RawPrompt,
    tags: Iterable[str] | str = (),
    conversation: str | None = None,
    tools: Sequence[Tool] | None = None,
    client: str | None = None,
    ticket: str | None = None,
) -> Request:
    """Check messages and gather facts. A plain string is one user message. Raises PromptError.

    Content that is not text makes the request `unreadable`, and so does a reply that has begun: policies say
    what happens then. The prompt of a `generate` may be blank, because its structure is unknown.
    """
    raw = messages if isinstance(messages, RawPrompt) else None
    if raw is not None and kind != "check":
        # nothing can be rephrased, as in `generate`
        kind = "generate"
    whole = kind == "generate" or raw is not None
    turns, reasons = _read(messages, whole)
    return Request(
        kind=kind,
        messages=turns,
        facts=_facts(turns, tags, conversation, whole),
        tools=checked_tools(tools),
        unreadable="; ".join(dict.fromkeys(reasons)) or None,
        named=bool(conversation),
        raw=raw,
        client=_given(client, "a client's name"),
        ticket=_given(ticket, "a ticket's id"),
    )


def _read(
    messages: Sequence[MessageLike] | str | RawPrompt, whole: bool
) -> tuple[tuple[Message, ...], list[str]]:
    """The turns, and what in them cannot be read. `whole`: one is the whole prompt, and may be blank."""
    parsed = [_numbered(item, number) for number, item in enumerate(_listed(messages))]
    if not parsed:
        raise PromptError("there are no messages", "messages")
    turns = tuple(turn for turn, _ in parsed)
    reasons = [reason for _, reason in parsed if reason]
    if not whole and not reasons:
        _check_last(turns[-1], f"messages[{len(turns) - 1}]")
    return turns, [*reasons, *([BEGUN] if turns[-1].role == "assistant" else [])]


def _listed(messages: Sequence[MessageLike] | str | RawPrompt) -> list[MessageLike]:
    if isinstance(messages, str | RawPrompt):
        return [Message("user", messages if isinstance(messages, str) else messages.text)]
    if not isinstance(messages, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PromptError(f"messages are a text or a list of turns, not {type(messages).__name__}")
    return list(messages)


def _facts(
    turns: Sequence[Message], tags: Iterable[str] | str, conversation: str | None, whole: bool
) -> Facts:
    return Facts(
        tags=tags_of(tags),
        user_turns=None if whole else sum(turn.role == "user" for turn in turns),
        last_role=None if whole else turns[-1].role,
        conversation=_given(conversation, "a conversation's id") or _conversation(turns),
    )


def tags_of(given: Iterable[str] | str) -> frozenset[str]:
    """The tags. Raises PromptError for what no `when: {tags: ...}` matches: policies would not be asked."""
    tags = [given] if isinstance(given, str) else given
    if isinstance(tags, bytes | bytearray | Mapping) or not isinstance(tags, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PromptError(f"tags are texts, or a list of them, not {type(given).__name__}")
    tags = list(tags)
    if wrong := [tag for tag in tags if not is_text(tag)]:
        raise PromptError(f"a tag is a text, not {wrong[0]!r}")
    return frozenset(tags)


def _given(value: str | None, what: str) -> str | None:
    if value is not None and not is_text(value):
        raise PromptError(f"{what} is a text, not {value!r}")
    return value


def _numbered(item: MessageLike, number: int) -> tuple[Message, str | None]:
    try:
        return message(item)
    except PromptError as error:
        raise PromptError(str(error), f"messages[{number}]") from None


def _check_last(turn: Message, name: str) -> None:
    if turn.tool_calls:
        raise PromptError("the last message calls tools; add what they answered, with the role `tool`", name)
    # a tool may have nothing to say
    if turn.role != "tool" and not turn.content.strip():
        raise PromptError("the last message is empty", name)


def _conversation(messages: Sequence[Message]) -> str:
    """Without an id, a conversation is known by its first user turn, which stays as it goes on."""
    first = next((turn for turn in messages if turn.role == "user"), messages[0])
    return prompt_sha256([first])[:16]
