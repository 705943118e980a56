"""The guard of one API server: policies, actions and audit as everywhere, around vLLM's engine client."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Coroutine, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from guardrail import Guard
from guardrail.engines import Completion, Emit, Evaluator, Prompt, Span
from guardrail.engines.transformers.rendering import Renderer
from guardrail.errors import UnsupportedGeneration
from guardrail.pipeline.driver import Driver
from guardrail.pipeline.request import Request
from guardrail.plugins.hookspecs import hookimpl
from guardrail.policy.plan import Plan
from guardrail.types import POSITIONS, Configuration, Fingerprint, Message, Position, Sampling
from guardrail_vllm.fingerprint import configuration
from guardrail_vllm.plan_limits import check_plan
from guardrail_vllm.plans import packed
from guardrail_vllm.worker.installation import end_tokens

T = TypeVar("T")
NAME = "vllm-served"
RPC_S = 60.0
"""How long the workers may take to answer."""


class ServedEngine:
    """The model of a server as its guard sees it. Requests do not go through here, but through the door."""

    positions: frozenset[Position] = frozenset(POSITIONS)

    def __init__(self, client: Any, renderer: Renderer, fingerprint: Fingerprint) -> None:
        self.model, self.tokenizer, self.fingerprint = client, renderer.tokenizer, fingerprint
        self._renderer = renderer
        self._loop = asyncio.get_running_loop()

    @property
    def max_tokens(self) -> int:
        """The longest sequence that vLLM takes."""
        return self.model.model_config.max_model_len

    @property
    def configuration(self) -> Configuration:
        """How vLLM runs the model."""
        return configuration(self.model.vllm_config, self.fingerprint)

    @cached_property
    def spare(self) -> int:
        """A token that the model does not say: one without a text, else a special one that ends nothing."""
        known = max(self.tokenizer.get_vocab().values()) + 1
        if known < self.fingerprint.vocab_size:
            return known
        ends = end_tokens(self.model.vllm_config)
        return next((token for token in self.tokenizer.all_special_ids if token not in ends), known - 1)

    def left_out(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str | None:
        """What the model's template leaves out of messages. Raises PromptError if it refuses them."""
        return self._renderer.left_out(messages, tools)

    def accept(self, plan: Plan) -> None:
        """Send a plan to all workers. Raises ModelError for one that vLLM cannot carry out."""
        check_plan(plan)
        self._renderer.check(plan.positions)
        self.wait(self.model.collective_rpc("guardrail_plan", RPC_S, (plan_name(plan), packed(plan))))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work on the server's event loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(RPC_S)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        positions: Collection[Position] = (),
    ) -> Prompt:
        """The prompt as the model's own template makes it, to see whether changed messages fit."""
        return self._renderer.render(messages, tools, positions)

    def spans(
        self,
        ids: Sequence[int],
        request: Request,
        messages: Sequence[Message],
        positions: Collection[Position],
    ) -> Mapping[Position, Sequence[Span]]:
        """The spans of positions in ids that vLLM rendered from messages, or that a client sent.

        Raises PromptError if they cannot be found.
        """
        if request.raw is None:
            prompt = self._renderer.render(messages, request.tools, positions)
            if prompt.ids == tuple(ids):
                return prompt.spans
        # by another template, or as they came: the model's own frames are in the ids, or it is an error
        return self._renderer.spans_in(ids, positions)

    def check(self, prompts: Sequence[Prompt], plan: Plan, evaluator: Evaluator, emit: Emit) -> None:
        """Raises UnsupportedGeneration."""
        raise UnsupportedGeneration("requests to a vLLM server go through its API")

    def reply(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        evaluator: Evaluator,
        sampling: Sampling,
        emit: Emit,
        stream: bool = False,
    ) -> Sequence[Completion]:
        """Raises UnsupportedGeneration."""
        raise UnsupportedGeneration(
            "inside a vLLM server the model cannot rewrite prompts: rephrase by instruction"
        )

    def close(self) -> None:
        """The server keeps its engine."""


class ServedGuard(Guard):
    """A guard that does not generate itself."""

    @classmethod
    def around(
        cls, engine: ServedEngine, policies: str, plugins: Sequence[object], watch_s: float
    ) -> ServedGuard:
        """Opens the guard. Blocks, and needs the event loop meanwhile: call it on another thread."""
        return cls(
            engine.model,
            engine.tokenizer,
            policies,
            engine=NAME,
            plugins=[_Engines(engine), *plugins],
            watch_s=watch_s,
        )

    @property
    def served(self) -> ServedEngine:
        """Its engine."""
        assert isinstance(self.engine, ServedEngine)
        return self.engine

    @property
    def driver(self) -> Driver:
        """What records, acts and opens tickets."""
        return self._driver


class _Engines:
    """The plugin that has this one engine."""

    def __init__(self, engine: ServedEngine) -> None:
        self.name, self._engine = NAME, engine

    @hookimpl
    def guardrail_engines(self) -> Sequence[str]:
        """Its name."""
        return [NAME]

    @hookimpl
    def guardrail_engine(self, name: str) -> ServedEngine | None:
        """The engine."""
        return self._engine if name == NAME else None


def plan_name(plan: Plan) -> str:
    """What requests call a plan: the same for the same policies, vectors and calibration."""
    parts = (plan.policy_sha256, plan.vectors_sha256, plan.calibration_sha256)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
