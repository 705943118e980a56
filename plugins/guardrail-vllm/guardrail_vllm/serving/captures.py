"""Which messages a prompt was rendered from, which vLLM's engine is not told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vllm.exceptions import VLLMValidationError

from guardrail_vllm.serving.calls import Chat, current

BEAMS = "beam search cannot be guarded: each of its steps is a prompt of its own"


def capture(renderer: Any) -> None:
    """Have vLLM's `OnlineRenderer` note the messages of every prompt that it renders with the chat template.

    Requests that cannot be guarded are refused there, before anything is sent to the engine.
    """
    original, completion = renderer.preprocess_chat, renderer.render_completion

    async def preprocess_chat(request: Any, messages: list[Any], *arguments: Any, **options: Any) -> Any:
        _check(request)
        for message in messages:
            _settle(message)

        async def again(changed: Sequence[Mapping[str, Any]]) -> Any:
            _, (prompt,) = await original(request, list(changed), *arguments, **options)
            return prompt

        conversation, prompts = await original(request, messages, *arguments, **options)
        # without a conversation the prompt is token ids that the client sent beside its messages
        if conversation and len(prompts) == 1:
            tools = options.get("tool_dicts") or ()
            chat = Chat(messages, tools, again, _changed(request), _begun(request))
            current().chats.append((prompts[0], chat))
        return conversation, prompts

    async def render_completion(request: Any, *arguments: Any, **options: Any) -> Any:
        _check(request)
        return await completion(request, *arguments, **options)

    renderer.preprocess_chat = preprocess_chat
    renderer.render_completion = render_completion


def _check(request: Any) -> None:
    if getattr(request, "use_beam_search", False):
        raise VLLMValidationError(BEAMS, parameter="use_beam_search")


def _settle(message: Any) -> None:
    """Parts that can be read only once, as vLLM's request has them, as lists."""
    if not isinstance(message, dict):
        return
    for key, value in message.items():
        if isinstance(value, Iterable) and not isinstance(value, str | list | dict | tuple):
            message[key] = list(value)


def _changed(request: Any) -> bool:
    return any(
        getattr(request, name, None) for name in ("chat_template", "chat_template_kwargs", "documents")
    )


def _begun(request: Any) -> bool:
    return bool(getattr(request, "continue_final_message", False)) or not getattr(
        request, "add_generation_prompt", True
    )
