"""Guard: the public API. What happens to a request is in `pipeline`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, Unpack

from guardrail.audit.trail import AuditTrail
from guardrail.engines import ConcurrentEngine, Engine, GeneratingEngine
from guardrail.errors import ConfigError
from guardrail.pipeline import chat, generate
from guardrail.pipeline.asynchronous import AsyncRequests
from guardrail.pipeline.driver import Driver
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.history import recorded
from guardrail.pipeline.installation import Installation
from guardrail.pipeline.look.looks import Looks
from guardrail.pipeline.options import ChatOptions, RequestOptions, about, split
from guardrail.pipeline.policies import watched
from guardrail.pipeline.request import Kind, request
from guardrail.pipeline.ruling import Ruling, Rulings, rulings
from guardrail.pipeline.stream import ReplyStream
from guardrail.pipeline.tickets import Tickets
from guardrail.pipeline.warm_up import warm_up
from guardrail.pipeline.worker import Load, Worker
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import ActivePolicies, Source, default_policies
from guardrail.types import Check, Decision, Messages, Position, RawPrompt, Reply, Ticket

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Guard(AsyncRequests, Rulings, Looks):
    """Guards one loaded model. Thread-safe: requests take turns, or share passes if the engine batches.

    model, tokenizer: a decoder-only Hugging Face model and its tokenizer. They stay yours; `close` takes
        every trace of the guard off them.
    policies: a policy file (path or content), or a shipped name (`chatbot`, `observe`, `strict`).
    engine: `transformers` (default), or the name of an engine that a plugin provides; an installed plugin
        of that name is enabled with it.
        `transformers-batching` batches the requests of many threads; `transformers-nnsight`,
        `transformers-hooks` and `transformers-ahead` choose how activations are read.
    plugins: plugin objects, or names of installed plugins.
    chat_template: used instead of the tokenizer's: `builtin:plain`, the path of a Jinja file, or Jinja text.
    template_arguments: what the chat template gets besides the messages.
    queue_size: how many requests may wait for the model (default 256); one more raises QueueFull.
    watch_s: reload the policy file when it changes, looking every so many seconds; None (default): never.

    Raises ConfigError for whatever is wrong, before the first request: ModelError for a model that cannot be
    guarded, PolicyError with every problem of a policy file, PluginError for plugins.
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
            raise ConfigError("queue_size must be at least 1")
        if policies is None:
            raise ConfigError("no policies were given; pass a policy file, a mapping, or a shipped name")
        enabled = Plugins(plugins).knowing(engine)
        with ExitStack() as undo:
            self.engine: Engine = enabled.engine(engine, model, tokenizer, chat_template, template_arguments)
            undo.callback(self.engine.close)
            self.policies = watched(policies, self.engine, enabled)
            undo.callback(self.policies.close)
            self._open(queue_size, undo)
            if watch_s is not None:
                self.policies.watch(watch_s)
            self.active.plugins.startup(self)
            self._close = undo.pop_all().close

    def _open(self, queue_size: int, undo: ExitStack) -> None:
        settings, plugins = self.active.policies.audit, self.active.plugins
        self.audit = AuditTrail(plugins.audit_sinks(settings), settings)
        undo.callback(self.audit.close)
        history = undo.enter_context(recorded(self.audit, self.engine, self.policies))
        self.sinks = plugins.escalation_sinks()
        threads = self.engine.concurrency if isinstance(self.engine, ConcurrentEngine) else 1
        worker = Worker(queue_size, threads=threads)
        self._driver = Driver(self.engine, worker, self.audit, self.sinks, history.model)
        undo.callback(self._driver.close)
        self._installation = Installation(self.generate, lambda: self.active.policies.unguarded_calls)
        if isinstance(self.engine, GeneratingEngine):
            self.engine.intercept(self._installation)
            undo.callback(self._installation.close, self.engine.model)

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
        """Load a model and its tokenizer (hub id, folder, GGUF file or `demo`) and guard it.

        policies: may be left out for `demo`, which has its own. `model_arguments` go to
        `AutoModelForCausalLM.from_pretrained` (dtype, device_map, ...), or to what the engine loads models
        with; the others are as in `Guard`.
        Raises ModelError if the model cannot be loaded, and what `Guard` raises.
        """
        model, tokenizer = Plugins(plugins).knowing(engine).load(engine, name, model_arguments)
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
        """The wrapped model: your own calls wait for guarded ones and are not evaluated; see `install`."""
        return self.engine.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, as it was handed in."""
        return self.engine.tokenizer

    @property
    def active(self) -> ActivePolicies:
        """The policies in force, compiled."""
        return self.policies.active

    @property
    def load(self) -> Load:
        """How busy the model's worker is."""
        return self._driver.worker.load

    def reload(self) -> bool:
        """Check the policy file again and swap it in. On failure, keep the last good one and return False."""
        return self.policies.reload()

    def chat(self, messages: Messages | str | RawPrompt, **options: Unpack[ChatOptions]) -> Reply:
        """Decide, then answer or act. A block is a reply, not an error.

        messages: turns as `Message` or as in the OpenAI API, tool calls included; a string is one user turn;
            a `RawPrompt` is a text that the model continues without a chat template.
        options: `tags`, `conversation` and `tools` (`RequestOptions`), and how to generate
            (`SamplingOptions`), by our names or by those of the OpenAI API.

        Raises PromptError for messages and options that cannot be read, QueueFull, GuardClosed, AuditError
        if the audit record cannot be written, and other RequestErrors if no trustworthy decision or reply
        was made.
        """
        return self.chat_many([messages], **options)[0]

    def chat_many(
        self, conversations: Sequence[Messages | str | RawPrompt], **options: Unpack[ChatOptions]
    ) -> list[Reply]:
        """As `chat`, for several conversations, 32 at a time; each gets its own decision."""
        about, sampling = split(options)
        exchanges = self._exchanges("chat", conversations, about)
        return chat.chat(self._driver, exchanges, self._driver.sampling(sampling, exchanges))

    def stream(self, messages: Messages | str | RawPrompt, **options: Unpack[ChatOptions]) -> ReplyStream:
        """As `chat`, in pieces of text. The decision comes before the first piece; `.reply` at the end."""
        about, sampling = split(options)
        (exchange,) = self._exchanges("stream", [messages], about)
        return ReplyStream(self._driver, exchange, self._driver.sampling(sampling, [exchange]))

    def check(self, messages: Messages | str | RawPrompt, **options: Unpack[RequestOptions]) -> Check:
        """Decide only: the forward pass ends at the last layer read, nothing is generated.

        Messages, options and errors as in `chat`, but nothing about generating.
        """
        return self.check_many([messages], **options)[0]

    def check_many(
        self, conversations: Sequence[Messages | str | RawPrompt], **options: Unpack[RequestOptions]
    ) -> list[Check]:
        """As `check`, for several conversations, 32 at a time."""
        return chat.check(self._driver, self._exchanges("check", conversations, about(options)))

    def ruling_many(
        self, conversations: Sequence[Messages | str], **options: Unpack[RequestOptions]
    ) -> list[Ruling]:
        """As `ruling`, for several conversations, 32 at a time."""
        return rulings(self._driver, self._exchanges("ruling", conversations, about(options)))

    def _exchanges(
        self, kind: Kind, conversations: Sequence[Messages | str | RawPrompt], about: RequestOptions
    ) -> list[Exchange]:
        policies = self.active
        requests = [request(kind, messages, **about) for messages in conversations]
        return [Exchange.of(item, policies) for item in requests]

    def warm_up(self) -> tuple[str, ...]:
        """Let every policy score a harmless prompt, and act on none. Returns what keeps them from it."""
        return warm_up(self._driver, self.active)

    def project(
        self,
        messages: Messages | str,
        traits: Sequence[str] | None = None,
        layers: Sequence[int] | str = "all",
        position: Position | Literal["own", "all"] = "own",
    ) -> NDArray[Any]:
        """Scores (projections if there is no calibration), for inspection. Decides nothing.

        traits: names; None for every trait of the vector file. layers: 1-based; `all` for every layer.
        position: what to read: `own` for what each probe reads, as policies do; `all` for every token.
        Returns float32 [traits, layers], or [traits, layers, tokens] for position="all"; NaN for a layer that
        cannot be used. Raises ConfigError for an unknown trait.
        """
        from guardrail.pipeline.project import project

        turns = request("check", messages).messages
        return self._driver.worker.call(
            lambda: project(self.engine, self.active, turns, traits, layers, position)
        )

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
        `output.decisions`, or in `last_decisions` if the output is a bare tensor. Raises
        UnsupportedGeneration for ways of generating that the guard cannot see, and RequestErrors as `chat`.
        """
        if inputs is not None:
            kwargs["inputs"] = inputs
        return generate.generate(self._driver, self.active, kwargs, tags, conversation)

    def install(self) -> Self:
        """Make the model's own `generate` the guarded one, until `close`: for pipelines, agents, threads.

        Without it, `model.generate` is unguarded: it warns, or raises with `unguarded_calls: error`.
        """
        self._installation.install()
        return self

    @contextmanager
    def installed(self) -> Generator[Self]:
        """`install`, for a `with` block. Blocks of several threads may overlap."""
        with self._installation.installed():
            yield self

    @property
    def last_decisions(self) -> tuple[Decision, ...]:
        """The decisions of the last `generate` in this thread or task, one for each prompt."""
        return generate.last_decisions().decisions

    @property
    def last_reply_decisions(self) -> tuple[Decision | None, ...]:
        """As `last_decisions`, on the replies; None for each that no response policy followed."""
        return generate.last_decisions().reply_decisions

    def ticket(self, ticket_id: str) -> Ticket | None:
        """An escalated prompt and what a person said; None if no sink knows it. Raises EscalationError."""
        return self.tickets.get(ticket_id)

    @property
    def tickets(self) -> Tickets:
        """All tickets: those that wait, and who may resolve them."""
        return self._driver.tickets

    def close(self) -> None:
        """Finish what runs, refuse what waits, and take every trace of the guard off the model."""
        self._close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a guard cannot be copied or pickled: it has threads, and a lock on its model")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
