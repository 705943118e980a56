"""From what vLLM's handlers ask its engine for to a request of the guard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RequestOutputKind, SamplingParams

from guardrail.errors import PromptError
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.request import Request, request
from guardrail.policy.decide_reply import watch
from guardrail.types import RawPrompt
from guardrail_vllm.serving.calls import Call, Chat, current
from guardrail_vllm.serving.guard import ServedGuard

TEMPLATE = (
    "the request brought a chat template, or arguments for it, and thresholds are made for the model's own"
)
BEGUN = "the prompt does not end where a reply begins, and thresholds are made for that place"
LORA = "a LoRA adapter was asked for, and the vectors are not certified for the model with it"
SEVERAL = "several replies to a prompt (`n`) cannot be followed by response policies"
REPLAYED = "tokens that the request brings cannot be replayed as a reply: a policy could not end it"
STREAMED = "prompts that are sent while they are answered cannot be guarded"
OTHER = {"multimodal": "content that is not text cannot be read", "embeds": "embeddings cannot be read"}
"""Kinds of prompts that hold more than tokens."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One prompt on its way in: the exchange, the HTTP request that it is from, and what it was made from."""

    exchange: Exchange
    call: Call
    chat: Chat | None
    unreadable: str | None


def incoming(guard: ServedGuard, prompt: Any, parameters: SamplingParams, lora: Any) -> Incoming:
    """What a handler asks for. Raises vLLM's validation error for what cannot be guarded, or is no prompt."""
    if lora is not None:
        raise VLLMValidationError(LORA)
    if not isinstance(prompt, dict) or "type" not in prompt:
        raise VLLMValidationError(STREAMED)
    if parameters.trace_decode_token_ids:
        raise VLLMValidationError(REPLAYED, parameter="trace_decode_token_ids")
    call = current()
    chat = call.chat(prompt)
    try:
        asked = _request(guard, prompt, parameters, call, chat)
    except PromptError as error:
        raise VLLMValidationError(str(error)) from error
    exchange = Exchange.of(asked, guard.active)
    if parameters.n > 1 and watch(exchange.policies.plan, exchange.facts).anything:
        raise VLLMValidationError(SEVERAL, parameter="n")
    exchange.prompt_tokens = len(prompt.get("prompt_token_ids") or ())
    exchange.room = parameters.max_tokens or 1
    if chat is not None and chat.changed:
        exchange.warn(TEMPLATE)
    reasons = [
        asked.unreadable,
        OTHER.get(prompt["type"]),
        BEGUN if chat is not None and chat.begun else None,
    ]
    return Incoming(exchange, call, chat, "; ".join(filter(None, reasons)) or None)


def _request(
    guard: ServedGuard, prompt: Any, parameters: SamplingParams, call: Call, chat: Chat | None
) -> Request:
    about: dict[str, Any] = {"tags": call.tags, "conversation": call.conversation, "ticket": call.ticket}
    if chat is not None:
        kind = "stream" if parameters.output_kind == RequestOutputKind.DELTA else "chat"
        return request(kind, chat.messages, tools=chat.tools, **about)
    ids = tuple(prompt.get("prompt_token_ids") or ())
    text = str(guard.tokenizer.decode(ids)) if ids else ""
    return replace(request("generate", RawPrompt(text or " ", ids), **about))
