"""Guard: the whole flow, from messages to a reply. Reads top to bottom.

messages -> request -> prompt -> one guarded prefill on the model's worker -> decision -> audit record
-> the action's response -> reply, or other messages and the same again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from guardrail.audit.trail import AuditTrail
from guardrail.engines import Engine
from guardrail.errors import ConfigError
from guardrail.pipeline.exchange import Round, Rounds
from guardrail.pipeline.generate import GuardedGenerate, last_decisions, last_responses
from guardrail.pipeline.request import request
from guardrail.pipeline.respond import Responder
from guardrail.pipeline.stream import ReplyStream
from guardrail.pipeline.worker import Worker
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import ActivePolicies, Source, default_policies
from guardrail.policy.reload import PolicyWatcher
from guardrail.types import Check, Decision, Messages, Reply, Sampling, Ticket

if TYPE_CHECKING:
    from numpy.typing import NDArray


BATCH = 32
"""How many conversations `chat_many` and `check_many` evaluate at once, under one time limit."""


class SamplingOptions(TypedDict, total=False):
    """What `chat` and `stream` pass on to generation; see `types.Sampling`."""

    max_new_tokens: int
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    stop: tuple[str, ...]


class Guard:
    """Guards one loaded model. Thread-safe: requests run one after another on the model's worker.

    policies: a policy file's path, its content as a mapping, or a PolicySet; None only for the built-in
    model, which comes with `policies/chatbot.yaml`. `chat_template` is used instead of the tokenizer's.
    Raises ConfigError for whatever is wrong, before the first request.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        policies: Source | None = None,
        *,
        engine: str = "transformers",
        plugins: Sequence[object] = (),
        chat_template: str | None = None,
        template_arguments: Mapping[str, object] | None = None,
        queue_size: int = 256,
        watch_s: float | None = None,
    ) -> None:
        if queue_size < 1:
            raise ConfigError("queue_size is at least 1")
        if policies is None:
            raise ConfigError("no policies were given: name a policy file, such as policies/chatbot.yaml")
        enabled = Plugins(plugins)
        self.engine: Engine = enabled.engine(engine, model, tokenizer, chat_template, template_arguments)
        try:
            self._open(policies, enabled, queue_size, watch_s)
        except BaseException:
            self.engine.close()
            raise

    def _open(self, policies: Source, plugins: Plugins, queue_size: int, watch_s: float | None) -> None:
        self.policies = PolicyWatcher(
            policies, self.engine.fingerprint, plugins, accept=lambda loaded: self.engine.accept(loaded.plan)
        )
        loaded = self.policies.active
        settings = loaded.policies.audit
        self.audit = AuditTrail(loaded.plugins.audit_sinks(settings), settings)
        self.sinks = loaded.plugins.escalation_sinks()
        self._worker = Worker(queue_size)
        self._rounds = Rounds(self.engine, self._worker, self.audit)
        if watch_s is not None:
            self.policies.watch(watch_s)
        loaded.plugins.startup(self)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        policies: Source | None = None,
        *,
        engine: str = "transformers",
        plugins: Sequence[object] = (),
        chat_template: str | None = None,
        template_arguments: Mapping[str, object] | None = None,
        queue_size: int = 256,
        watch_s: float | None = None,
        **model_arguments: Any,
    ) -> Self:
        """Load a model and its tokenizer (hub id, folder, or `demo`) and guard it.

        `model_arguments` go to `AutoModelForCausalLM.from_pretrained` (dtype, device_map, ...).
        """
        from guardrail.engines.transformers.pretrained import load_pretrained

        model, tokenizer = load_pretrained(name, model_arguments)
        return cls(
            model,
            tokenizer,
            policies if policies is not None else default_policies(name),
            engine=engine,
            plugins=plugins,
            chat_template=chat_template,
            template_arguments=template_arguments,
            queue_size=queue_size,
            watch_s=watch_s,
        )

    @property
    def model(self) -> Any:
        """The wrapped model, unguarded: calls of your own wait for guarded ones, and are not evaluated."""
        return self.engine.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, as it was handed in."""
        return self.engine.tokenizer

    @property
    def active(self) -> ActivePolicies:
        """The policies in force, compiled."""
        return self.policies.active

    def reload(self) -> bool:
        """Check the policy file again and swap it in; keeps the last good one and says False on failure."""
        return self.policies.reload()

    # --- chat -----------------------------------------------------------------------------------------

    def chat(
        self,
        messages: Messages | str,
        *,
        tags: Iterable[str] = (),
        conversation: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Reply:
        """Decide, then answer or act. Raises RequestError; a block is a reply, not an error."""
        return self.chat_many([messages], tags=tags, conversation=conversation, **sampling)[0]

    def chat_many(
        self,
        conversations: Sequence[Messages | str],
        *,
        tags: Iterable[str] = (),
        conversation: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Reply]:
        """As `chat`, for several conversations in one batch; each gets its own decision."""
        requests = [request("chat", messages, tags, conversation) for messages in conversations]
        loaded, options, replies = self.active, Sampling(**sampling), dict[str, Reply]()
        while todo := [r for r in requests if r.id not in replies][:BATCH]:
            with self._rounds.closing(loaded, todo):
                answered = self._rounds.reply(loaded, todo, options)
                replies |= self._settled(loaded, answered)
        return [replies[r.id] for r in requests]

    def _settled(self, loaded: ActivePolicies, answered: Round) -> dict[str, Reply]:
        responder = self._responder(loaded)
        found: dict[str, Reply] = {}
        for i, item in enumerate(answered.requests):
            if (reply := answered.settle(i, responder)) is not None:
                found[item.id] = reply
        return found

    def stream(
        self,
        messages: Messages | str,
        *,
        tags: Iterable[str] = (),
        conversation: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> ReplyStream:
        """As `chat`, in pieces of text. The decision comes before the first piece; `.reply` at the end."""
        item = request("stream", messages, tags, conversation)
        loaded = self.active
        return ReplyStream(self._rounds, loaded, item, Sampling(**sampling), self._responder(loaded))

    def _responder(self, loaded: ActivePolicies, retries: bool = True) -> Responder:
        return Responder(loaded, partial(self._rounds.unguarded, loaded), self.sinks, retries)

    # --- decisions without a reply --------------------------------------------------------------------

    def check(
        self, messages: Messages | str, *, tags: Iterable[str] = (), conversation: str | None = None
    ) -> Check:
        """Decide only: the forward ends at the last layer read, nothing is generated."""
        return self.check_many([messages], tags=tags, conversation=conversation)[0]

    def check_many(
        self,
        conversations: Sequence[Messages | str],
        *,
        tags: Iterable[str] = (),
        conversation: str | None = None,
    ) -> list[Check]:
        """As `check`, for several conversations in one batch."""
        requests = [request("check", messages, tags, conversation) for messages in conversations]
        loaded = self.active
        batches = (requests[i : i + BATCH] for i in range(0, len(requests), BATCH))
        return [check for batch in batches for check in self._rounds.check(loaded, batch)]

    def project(
        self,
        messages: Messages | str,
        traits: Sequence[str] | None = None,
        layers: Sequence[int] | str = "all",
        position: str = "last",
    ) -> NDArray[Any]:
        """Scores (projections where there is no calibration) for people who look.

        [traits, layers] at the last prompt token, or [traits, layers, tokens] for position="all".
        """
        from guardrail.pipeline.project import project

        item = request("check", messages)
        return self._worker.call(
            lambda: project(self.engine, self.active, item.messages, traits, layers, position)
        )

    # --- in place of model.generate -------------------------------------------------------------------

    def generate(
        self,
        inputs: Any = None,
        *,
        tags: Iterable[str] = (),
        conversation: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """In place of `model.generate`, with its arguments and its return value.

        A blocked row is its prompt, the tokenised message, end-of-sequence and padding. Decisions are in
        `output.decisions`, or `last_decisions` where the output is a bare tensor. Raises
        UnsupportedGeneration for ways of generating that the guard cannot see.
        """
        if inputs is not None:
            kwargs["inputs"] = inputs
        loaded = self.active
        responder = self._responder(loaded, retries=False)
        return GuardedGenerate(self._rounds, loaded, responder, tags, conversation).run(kwargs)

    @property
    def last_decisions(self) -> tuple[Decision, ...]:
        """The decisions of the last `generate` in this thread or task, one for each prompt."""
        return last_decisions()

    @property
    def last_responses(self) -> tuple[Decision | None, ...]:
        """As `last_decisions`, on the replies; None for each that no response policy followed."""
        return last_responses()

    # --- async forms ----------------------------------------------------------------------------------

    async def achat(self, messages: Messages | str, **options: Any) -> Reply:
        """`chat`, without blocking the event loop."""
        return await asyncio.to_thread(self.chat, messages, **options)

    async def acheck(self, messages: Messages | str, **options: Any) -> Check:
        """`check`, without blocking the event loop."""
        return await asyncio.to_thread(self.check, messages, **options)

    async def astream(self, messages: Messages | str, **options: Any) -> AsyncIterator[str]:
        """`stream`, without blocking the event loop."""
        stream = self.stream(messages, **options)
        try:
            while (piece := await asyncio.to_thread(next, stream, None)) is not None:
                yield piece
        finally:
            stream.close()

    # --- people, and the end --------------------------------------------------------------------------

    def ticket(self, ticket_id: str) -> Ticket | None:
        """An escalated prompt and what a person said; None where no sink knows it."""
        return next((t for sink in self.sinks.values() if (t := sink.get(ticket_id))), None)

    def close(self) -> None:
        """Finish what runs, refuse what waits, and take every trace of the guard off the model."""
        self.policies.close()
        self._worker.close()
        self.engine.close()
        self.audit.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


__all__ = ["Guard", "SamplingOptions"]
