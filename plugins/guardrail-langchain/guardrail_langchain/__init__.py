"""A LangChain middleware: a local model reads the conversation before any model of the agent answers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypeAlias

from langchain.agents.middleware import AgentMiddleware, AgentState, hook_config
from langchain_core.messages import AIMessage, convert_to_openai_messages
from langgraph.runtime import Runtime

from guardrail import Guard
from guardrail.pipeline.ruling import Ruling

__all__ = ["GuardrailMiddleware", "GuardrailState"]

KEY = "guardrail"
"""Of the state, and of `response_metadata`."""
Update: TypeAlias = dict[str, Any]


class GuardrailState(AgentState[Any]):
    """The agent's state with the last ruling, as JSON."""

    guardrail: NotRequired[dict[str, Any]]


class GuardrailMiddleware(AgentMiddleware[GuardrailState]):
    """Rules on the conversation before every call of a model; a refusal is the answer, and the run ends.

    The state's `guardrail` and every answer's `response_metadata["guardrail"]` hold the ruling. The guard's
    errors end the run as well: it raises them.

    guard: the guard of the model that reads. system_prompt: the agent's own, which no message holds and which
    is read too. tags: what `when: {tags: ...}` in policies refers to.
    """

    state_schema = GuardrailState

    def __init__(self, guard: Guard, *, system_prompt: str | None = None, tags: Sequence[str] = ()) -> None:
        super().__init__()
        self.guard, self.system_prompt, self.tags = guard, system_prompt, tuple(tags)

    @hook_config(can_jump_to=["end"])
    def before_model(self, state: GuardrailState, runtime: Runtime[Any]) -> Update:
        """Rule on the messages so far."""
        return _update(self.guard.ruling(self._messages(state), tags=self.tags))

    @hook_config(can_jump_to=["end"])
    async def abefore_model(self, state: GuardrailState, runtime: Runtime[Any]) -> Update:
        """As `before_model`, without blocking the event loop."""
        return _update(await self.guard.aruling(self._messages(state), tags=self.tags))

    def after_model(self, state: GuardrailState, runtime: Runtime[Any]) -> Update | None:
        """Attach the ruling to the answer."""
        last, ruling = state["messages"][-1], state.get(KEY)
        return {"messages": [_marked(last, ruling)]} if ruling and isinstance(last, AIMessage) else None

    async def aafter_model(self, state: GuardrailState, runtime: Runtime[Any]) -> Update | None:
        """As `after_model`."""
        return self.after_model(state, runtime)

    def _messages(self, state: GuardrailState) -> list[dict[str, Any]]:
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return [*system, *convert_to_openai_messages(state["messages"])]


def _update(ruling: Ruling) -> Update:
    said = ruling.as_json()
    if ruling.text is None:
        return {KEY: said}
    return {KEY: said, "messages": [AIMessage(ruling.text, response_metadata={KEY: said})], "jump_to": "end"}


def _marked(message: AIMessage, ruling: dict[str, Any]) -> AIMessage:
    return message.model_copy(update={"response_metadata": {**message.response_metadata, KEY: ruling}})
