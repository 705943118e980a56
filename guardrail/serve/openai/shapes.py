"""Parts that several endpoints of the OpenAI API share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from guardrail.serve.errors import ApiError
from guardrail.serve.verdict import Wishes


class StreamOptions(BaseModel):
    """The field `stream_options`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """Accepted; nothing is padded here."""


class Usage(BaseModel):
    """Tokens of one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Body(BaseModel):
    """The body of a request, with fields that every endpoint takes.

    `idle` lists known fields that do nothing here, with the values that ask for nothing: others are refused.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    idle: ClassVar[Mapping[str, tuple[object, ...]]] = {}

    model: str
    metadata: dict[str, str] | None = None
    guardrail: Wishes | None = None
    user: str | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    def check_idle(self) -> None:
        """Raises ApiError for a field that asks for something that the server does not do."""
        for name, values in self.idle.items():
            if (value := getattr(self, name)) is not None and value not in values:
                text = f"Unsupported parameter: '{name}' is not supported with this model; leave it out."
                raise ApiError(400, text, code="unsupported_parameter", param=name)

    def chosen(self, *names: str) -> dict[str, Any]:
        """Those of these fields that the request has given."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}
