"""Makes one HTTP call with one deadline. Independent of policies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, Self

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from guardrail.endpoint.calls import Connections, NoAnswer

LIMIT = 1 << 16
"""The maximum size of an answer, in bytes."""


class WebhookError(Exception):
    """The service gave no usable answer in time."""


class Verdict(BaseModel):
    """The service's answer. `message` belongs only to the answer `message`."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    answer: Literal["approve", "deny", "message"]
    message: str = ""

    @model_validator(mode="after")
    def _has_its_message(self) -> Self:
        if self.answer == "message" and not self.message:
            raise ValueError("the answer `message` needs a `message`")
        return self


def call(url: str, question: Mapping[str, object], timeout_s: float, token: str | None = None) -> Verdict:
    """POST the question as JSON. Raises WebhookError for anything but a 200 with a verdict, in time."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with Connections(headers) as connections:
            answer = connections.post(url, json.dumps(question).encode(), timeout_s, LIMIT)
    except NoAnswer as error:
        raise WebhookError(str(error)) from error
    except (httpx.InvalidURL, UnicodeError) as error:
        raise WebhookError(f"not an address: {error}") from error
    if answer.status != httpx.codes.OK:
        raise WebhookError(f"status {answer.status}")
    return _verdict(answer.content)


def _verdict(content: bytes) -> Verdict:
    try:
        return Verdict.model_validate_json(content)
    except ValidationError as error:
        raise WebhookError(f"not a verdict: {error.errors()[0]['msg']}") from error
