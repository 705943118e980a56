"""What is known of one HTTP request besides what vLLM's handlers hand to the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from guardrail.policy.plan import STRENGTHS
from guardrail.serve.verdict import Verdict

Render = Callable[[Sequence[Mapping[str, Any]]], Awaitable[Any]]
"""Renders other messages as the request's were: vLLM's input for its engine."""


@dataclass(frozen=True, slots=True)
class Chat:
    """The messages and tools that the chat template rendered to a prompt.

    `changed`: the request brought a template, or arguments for it, of its own. `begun`: the prompt does not
    end where a reply begins.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    render: Render
    changed: bool = False
    begun: bool = False


@dataclass(slots=True)
class Call:
    """One HTTP request. `chats`: each prompt that was rendered for it, with what it was rendered from."""

    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    chats: list[tuple[Any, Chat]] = field(default_factory=list[tuple[Any, Chat]])
    verdicts: dict[str, Verdict] = field(default_factory=dict[str, Verdict])
    """By audit id: a request may have several prompts."""

    def chat(self, prompt: Any) -> Chat | None:
        """The chat that this very prompt was rendered from."""
        return next((chat for rendered, chat in self.chats if rendered is prompt), None)

    @property
    def tags(self) -> list[str]:
        """The header `x-guardrail-tags`."""
        given = self.headers.get("x-guardrail-tags", "").split(",")
        return [tag for part in given if (tag := part.strip())]

    @property
    def conversation(self) -> str | None:
        """The header `x-guardrail-conversation`."""
        return self.headers.get("x-guardrail-conversation")

    @property
    def ticket(self) -> str | None:
        """The header `x-guardrail-ticket`."""
        return self.headers.get("x-guardrail-ticket")

    @property
    def answer(self) -> Mapping[str, str]:
        """The headers of the response: of several decisions, those of the strongest."""
        if not self.verdicts:
            return {}
        return max(self.verdicts.values(), key=lambda one: STRENGTHS.get(one.telling.done, 40)).headers


_current: ContextVar[Call] = ContextVar("guardrail_vllm_call")


def current() -> Call:
    """The call for which this code runs; an empty one outside of HTTP."""
    return _current.get(None) or Call()


def enter(call: Call) -> None:
    """Make this the call of everything that is started from here."""
    _current.set(call)
