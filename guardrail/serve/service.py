"""What routes get: the only way from a route to the guard."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request

from guardrail.actions.escalate import EscalateConfig
from guardrail.pipeline.options import RequestOptions
from guardrail.serve.delivery import Delivery
from guardrail.serve.errors import ApiError
from guardrail.serve.headers import listed, single
from guardrail.serve.key_ring import KeyRing
from guardrail.serve.keys import Right, caller
from guardrail.serve.refusals import Refusals
from guardrail.serve.settings import ServerSettings
from guardrail.serve.verdict import Verdict, Wishes
from guardrail.serve.warm_up import WarmUp
from guardrail.types import RawPrompt, Reply

if TYPE_CHECKING:
    from guardrail import Guard

log = logging.getLogger("guardrail.serve")

LOOK_S = 2.0
"""How often files are looked at."""
CONVERSATION, MAX_ID = "x-guardrail-conversation", 512
"""The header that names a conversation, and the most characters of a name: thousands are remembered."""


@dataclass
class Service:
    """One guard, one server. `started` is a Unix time in seconds."""

    guard: Guard
    settings: ServerSettings
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        tickets = self.guard.tickets
        self.delivery = Delivery(self.settings.queue, self.settings.deadline_s, lambda: tickets.waiting)
        self.warm_up = WarmUp(self.guard)
        self.refusals = Refusals(tickets)
        self.keys = KeyRing(self.settings.keys, self.settings.keys_file)

    async def watch(self) -> None:
        """Look at the keys' file, and at policies that are new, again and again until cancelled."""
        known: object = None
        while True:
            if (active := self.guard.active) is not known:
                for warning in self.warnings:
                    log.warning("%s", warning)
            known = active
            await asyncio.to_thread(self.keys.look)
            await asyncio.sleep(LOOK_S)

    @property
    def warnings(self) -> list[str]:
        """What is wrong about the policies in force on a server with this deadline."""
        plan, limit = self.guard.active.plan, self.settings.deadline_s
        configs = [(rule.id, rule.config) for rule in (*plan.rules, *plan.reply_rules)]
        return [
            f"{name}: may wait {config.wait_s:g} s for a person, but requests end after {limit:g} s"
            for name, config in configs
            if isinstance(config, EscalateConfig) and config.wait_s >= limit
        ]

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop, and refuses new requests."""
        return self.delivery.draining

    def check_model(self, name: str) -> None:
        """Raises ApiError unless this is a name of the model."""
        if name not in self.settings.names:
            known = ", ".join(f"`{known}`" for known in self.settings.names)
            text = f"The model `{name[:100]}` does not exist here; this server has {known}."
            raise ApiError(404, text, code="model_not_found", param="model")

    @property
    def fingerprint(self) -> str:
        """What tells replies of different weights or policies apart."""
        weights = self.guard.engine.fingerprint.weights.rpartition(":")[2]
        return f"fp_{weights[:8]}{self.guard.active.sha256[:8]}"

    def check_messages(self, count: int, name: str = "messages") -> None:
        """Raises ApiError for a conversation of too many turns."""
        if count > (limit := self.settings.max_messages):
            text = f"{count} messages are too many; this server takes {limit} in one request."
            raise ApiError(400, text, code="array_above_max_length", param=name)

    def check_choices(self, count: int, name: str = "n") -> None:
        """Raises ApiError for too many replies to one request."""
        if count > (limit := self.settings.max_choices):
            text = f"{count} replies are too many; this server gives {limit} to one request."
            raise ApiError(400, text, code="integer_above_max_value", param=name)

    def raw_prompt(self, ids: Sequence[int]) -> RawPrompt:
        """A prompt of token ids, with its text. Raises ApiError for ids that are none."""
        try:
            return RawPrompt(self.guard.engine.tokenizer.decode(ids), tuple(ids))
        except (TypeError, ValueError, OverflowError):
            text = "Invalid value for 'prompt': these are no token ids of this model."
            raise ApiError(400, text, code="invalid_value", param="prompt") from None

    def reply_tokens(self, asked: Mapping[str, int]) -> int:
        """The most tokens that a reply may have, given the fields that ask for it. Raises ApiError."""
        limit = self.settings.max_tokens
        for name, value in asked.items():
            if value > limit:
                text = f"{name} is too large: {value}. This server gives at most {limit} tokens."
                raise ApiError(400, text, code="integer_above_max_value", param=name)
        return next(iter(asked.values()), self.settings.default_tokens)

    def check_blocked(self, reply: Reply, verdict: Verdict, answer: str | None = None) -> None:
        """Raises ApiError for a reply that was blocked, if the settings want that.

        `answer`: what the action says, if a part of the reply was sent before.
        """
        if self.settings.blocks == "error" and reply.outcome == "blocked":
            raise ApiError(
                400,
                reply.text if answer is None else answer.lstrip(),
                code="guardrail_blocked",
                headers=verdict.headers,
                guardrail=verdict.field(whole=False),
            )

    def about(self, request: Request, metadata: Mapping[str, str] | None = None) -> RequestOptions:
        """Tags, conversation, ticket. Headers, which gateways set, win over the metadata of the body.

        Raises ApiError for tags in a request whose key has its own: policies may depend on them. And for a
        header that came with several values, or an id that is too long to keep.
        """
        given, headers = metadata or {}, request.headers
        conversation = single(headers, CONVERSATION) or given.get("conversation") or ""
        if len(conversation) > MAX_ID:
            text = f"The conversation's id has {len(conversation)} characters; it may have {MAX_ID}."
            raise ApiError(400, text, code="string_above_max_length", param=CONVERSATION)
        own = [tag.strip() for tag in given.get("tags", "").split(",") if tag.strip()]
        tags = listed(headers, "x-guardrail-tags") or own
        key = caller(request.scope)
        if key is not None and key.tags is not None:
            if not set(tags) <= set(key.tags):
                text = f"The tags of the key `{key.name}` are fixed. Leave out tags of your own."
                raise ApiError(403, text, code="tags_not_allowed")
            tags = key.tags
        return RequestOptions(
            tags=tags,
            conversation=conversation or None,
            client=None if key is None else key.name,
            ticket=single(headers, "x-guardrail-ticket") or given.get("ticket") or None,
        )

    def check_right(self, request: Request, right: Right) -> None:
        """Raises ApiError if the key of a request is not meant for this.

        Without keys everyone may ask; only this machine may do more, and nobody reads what others wrote.
        """
        key = caller(request.scope)
        if key is None:
            if right not in self.settings.open_rights:
                text = (
                    f"This needs an API key with the right `{right}`, and this server has no keys. "
                    "Start it with `--keys`."
                )
                raise ApiError(403, text, code="keys_required")
        elif right not in key.rights:
            text = f"The key `{key.name}` does not have the right `{right}`."
            raise ApiError(403, text, code="insufficient_permissions")


def wants_decision(request: Request, wishes: Wishes | None) -> bool:
    """Whether the response shall hold the whole decision: a header says so, or the field `guardrail`.

    Raises ApiError for a header that says neither yes nor no.
    """
    header = (single(request.headers, "x-guardrail-decision") or "").lower()
    if header not in ("", "true", "1", "false", "0"):
        text = "Invalid value for the header 'x-guardrail-decision': it is true or false."
        raise ApiError(400, text, code="invalid_value", param="x-guardrail-decision")
    return header in ("true", "1") or (wishes is not None and wishes.decision)
