"""From what a caller hands in to a request: messages checked, facts gathered. Knows no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal, TypeAlias, TypedDict

from guardrail.errors import PromptError
from guardrail.files.records import new_id, prompt_sha256, utc_now
from guardrail.types import Facts, Message, MessageLike

ROLES = ("system", "user", "assistant", "tool")
Kind: TypeAlias = Literal["chat", "stream", "check", "generate"]


class SamplingOptions(TypedDict, total=False):
    """How to generate. An option that is not given is left to the model's own generation config.

    max_new_tokens: at most this many reply tokens (default 256). temperature: 0 is greedy. top_p: 0 to 1.
    top_k: a number of tokens, 0 for all. seed: makes sampling repeatable. stop: texts that end the reply.
    """

    max_new_tokens: int
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as the caller made it.

    `messages` is a single message that holds the whole prompt if `kind` is `generate`. `unreadable` says what
    in the messages is not text. `named`: whether the caller gave the conversation's id.
    """

    kind: Kind
    messages: tuple[Message, ...]
    facts: Facts
    unreadable: str | None = None
    named: bool = False
    id: str = field(default_factory=new_id)
    time: str = field(default_factory=utc_now)
    start: float = field(default_factory=perf_counter)

    @property
    def conversation(self) -> str | None:
        """The conversation's id, if the caller gave one."""
        return self.facts.conversation if self.named else None


def request(
    kind: Kind,
    messages: Sequence[MessageLike] | str,
    tags: Iterable[str] | str = (),
    conversation: str | None = None,
) -> Request:
    """Check messages and gather facts. A plain string is one user message. Raises PromptError.

    Content that is not text makes the request `unreadable`: policies say what happens then. The prompt of a
    `generate` may be blank, because its structure is unknown.
    """
    raw = [Message("user", messages)] if isinstance(messages, str) else list(messages)
    if not raw:
        raise PromptError("there are no messages")
    parsed = [_message(item) for item in raw]
    turns = tuple(message for message, _ in parsed)
    unreadable = next((reason for _, reason in parsed if reason), None)
    if kind != "generate" and not unreadable and not turns[-1].content.strip():
        raise PromptError("the last message is empty")
    facts = Facts(
        tags=frozenset([tags] if isinstance(tags, str) else tags),
        user_turns=sum(message.role == "user" for message in turns),
        last_role=turns[-1].role,
        conversation=conversation or _conversation(turns),
    )
    return Request(
        kind=kind,
        messages=turns,
        facts=facts,
        unreadable=unreadable,
        named=bool(conversation),
    )


def _conversation(messages: Sequence[Message]) -> str:
    """Without an id, a conversation is known by its first user turn, which stays as it goes on."""
    first = next((message for message in messages if message.role == "user"), messages[0])
    return prompt_sha256([first])[:16]


def _message(item: MessageLike) -> tuple[Message, str | None]:
    if isinstance(item, Message):
        item = item.as_dict()
    if not isinstance(item, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PromptError(f"a message is a mapping with `role` and `content`, not {type(item).__name__}")
    role = item.get("role")
    if role not in ROLES:
        raise PromptError(f"unknown role {role!r}; roles are {', '.join(ROLES)}")
    text, reason = _content(item.get("content"))
    if not _encodable(text):
        raise PromptError("the text contains an unpaired surrogate, which is not valid Unicode")
    if item.get("tool_calls"):
        reason = "tool calls cannot be read"
    return Message(role, text), reason  # pyright: ignore[reportArgumentType]


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _content(content: object) -> tuple[str, str | None]:
    if isinstance(content, str):
        return content, None
    if not isinstance(content, Sequence):
        return "", f"content of type {type(content).__name__} cannot be read"
    texts = [str(part["text"]) for part in content if _is_text(part)]
    other = [part for part in content if not _is_text(part)]
    reason = f"content parts of type {_kind(other[0])} cannot be read" if other else None
    return "\n".join(texts), reason


def _is_text(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _kind(part: object) -> str:
    return str(part.get("type", "unknown")) if isinstance(part, Mapping) else type(part).__name__
