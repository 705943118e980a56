"""Makes one HTTP call with one deadline. Independent of policies."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal, Self

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from guardrail.endpoint.bodies import Overrun, body_of

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
    deadline = time.monotonic() + timeout_s
    try:
        with (
            httpx.Client(timeout=timeout_s, follow_redirects=False, headers=headers) as client,
            client.stream("POST", url, json=question) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise WebhookError(f"status {response.status_code}")
            return Verdict.model_validate_json(body_of(response, deadline, LIMIT))
    except Overrun as overrun:
        raise WebhookError(str(overrun)) from overrun
    except httpx.HTTPError as error:
        raise WebhookError(repr(error)) from error
    except ValidationError as error:
        raise WebhookError(f"not a verdict: {error.errors()[0]['msg']}") from error
