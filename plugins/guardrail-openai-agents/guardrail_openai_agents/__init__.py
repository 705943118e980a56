"""An input guardrail for the OpenAI Agents SDK: a local model reads the input before an agent sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents import Agent, GuardrailFunctionOutput, InputGuardrail, RunContextWrapper, TResponseInputItem
from agents.models.chatcmpl_converter import Converter

from guardrail import Guard, PromptError

__all__ = ["guardrail"]


def guardrail(guard: Guard, *, tags: Sequence[str] = (), name: str = "guardrail") -> InputGuardrail[Any]:
    """Trips if the prompt, with the agent's instructions, may not go to the agent's model.

    `output_info` is the `Ruling`: `text` is what to say, `decision` the scores, `ticket_id` the ticket. The
    agent waits for it: nothing runs in parallel. The guard's errors end the run.

    guard: the guard of the model that reads. tags: what `when: {tags: ...}` in policies refers to.
    """

    async def read(
        context: RunContextWrapper[Any], agent: Agent[Any], given: str | list[TResponseInputItem]
    ) -> GuardrailFunctionOutput:
        messages = [*_system(await agent.get_system_prompt(context)), *_messages(given)]
        ruling = await guard.aruling(messages, tags=tuple(tags))
        return GuardrailFunctionOutput(output_info=ruling, tripwire_triggered=not ruling.passes)

    return InputGuardrail(guardrail_function=read, name=name, run_in_parallel=False)


def _system(prompt: str | None) -> list[dict[str, Any]]:
    return [{"role": "system", "content": prompt}] if prompt else []


def _messages(given: str | list[TResponseInputItem]) -> list[dict[str, Any]]:
    """As messages of the chat API. Raises PromptError for items that have no form there."""
    try:
        return [dict(message) for message in Converter.items_to_messages(given)]
    except Exception as error:
        raise PromptError(f"an item of the input cannot be read: {error}") from error
