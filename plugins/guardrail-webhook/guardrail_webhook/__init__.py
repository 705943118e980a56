"""The action `webhook`: your own service approves, denies or answers. No text is sent unless configured."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import Action
from guardrail_webhook.action import Webhook, WebhookConfig

__all__ = ["Webhook", "WebhookConfig"]


@hookimpl
def guardrail_actions() -> Sequence[Action]:
    """`webhook`."""
    return [Webhook()]
