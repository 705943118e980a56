"""The action: turns the service's answer into a response. Contains no HTTP."""

from __future__ import annotations

import logging
import os
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator

from guardrail.endpoint.addresses import http_address, variable_that_is_set
from guardrail.files.records import Json, decision_to_json, messages_to_json, prompt_sha256
from guardrail.plugins.protocols import ActionConfig, ActionContext, Answer, Otherwise, Response, Retry
from guardrail.types import STOP, FailureAction
from guardrail_webhook.calling import Verdict, WebhookError, call

REFUSAL = "I can't help with that."

log = logging.getLogger("guardrail")


class WebhookConfig(ActionConfig):
    """`otherwise` takes over if the service is down, late, or gives an unclear answer.

    `message` is the refusal, `send_text` also sends the conversation, and `token_env` names the environment
    variable with a bearer token.
    """

    url: str
    timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 5.0
    message: str | None = None
    otherwise: FailureAction = "block"
    send_text: bool = False
    token_env: str | None = None

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        return http_address(value)

    @field_validator("token_env")
    @classmethod
    def _set(cls, value: str | None) -> str | None:
        return None if value is None else variable_that_is_set(value)


class Webhook:
    """Stops the forward pass; the model answers only if the service approves."""

    name = "webhook"
    strength = 35
    Config: ClassVar[type[BaseModel]] = WebhookConfig

    def compile(self, config: WebhookConfig) -> Literal["stop"]:
        """Stop at the last layer read."""
        return STOP

    def respond(self, config: WebhookConfig, context: ActionContext) -> Response:
        """The service's answer, or `otherwise`."""
        token = os.environ.get(config.token_env) if config.token_env else None
        try:
            verdict = call(config.url, _question(config, context), config.timeout_s, token)
        except WebhookError as error:
            log.warning("webhook of %s: %s; %s takes over", context.policy, error, config.otherwise)
            return Otherwise(config.otherwise)
        return _response(verdict, config, context)


def _response(verdict: Verdict, config: WebhookConfig, context: ActionContext) -> Response:
    if verdict.answer == "approve":
        return Retry(context.messages, waive=frozenset({context.policy}))
    if verdict.answer == "message":
        return Answer(verdict.message)
    return Answer(config.message or context.message or REFUSAL)


def _question(config: WebhookConfig, context: ActionContext) -> Json:
    question: Json = {
        "version": 1,
        "policy": context.policy,
        "decision": decision_to_json(context.decision),
        "prompt_sha256": prompt_sha256(context.messages),
        "turns": len(context.messages),
    }
    if config.send_text:
        question["messages"] = messages_to_json(context.messages)
    return question
