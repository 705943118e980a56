"""The escalation to `model`: another model, larger or safer, answers in this one's place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, field_validator

from guardrail.endpoint.addresses import http_address, variable_that_is_set
from guardrail.errors import EscalationError
from guardrail.plugins.protocols import ActionConfig
from guardrail.types import Message

ATTEMPTS = 2
"""How often it is asked, if waiting may help."""


class OtherModel(ActionConfig):
    """A model behind an OpenAI-compatible endpoint. `timeout_s` limits each of two attempts.

    `api_key_env` names the environment variable that holds the key.
    """

    base_url: str
    model: Annotated[str, Field(min_length=1)]
    api_key_env: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    timeout_s: Annotated[float, Field(gt=0.0, le=600.0)] = 30.0

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str) -> str:
        return http_address(value)

    @field_validator("api_key_env")
    @classmethod
    def _set(cls, value: str | None) -> str | None:
        return None if value is None else variable_that_is_set(value)


def answer(settings: OtherModel, messages: Sequence[Message]) -> str:
    """What the other model answers. Raises EndpointError, ConfigError and EscalationError."""
    from guardrail.endpoint.client import Endpoint
    from guardrail.endpoint.messages import ChatRequest, EndpointSettings

    limits = EndpointSettings(
        base_url=settings.base_url,
        api_key_env=settings.api_key_env or "",
        timeout_s=settings.timeout_s,
        attempts=ATTEMPTS,
        max_wait_s=settings.timeout_s,
    )
    request = ChatRequest(model=settings.model, messages=tuple(messages), max_tokens=settings.max_tokens)
    with Endpoint(limits) as endpoint:
        text = endpoint.complete(request).text
    if not text.strip():
        raise EscalationError("the other model said nothing")
    return text
