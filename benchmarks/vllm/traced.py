"""nnsight's own integration of vLLM, as another side: it reads the states, and the policies decide here.

It needs vLLM's V1 runner, and two things for a CPU: a worker of its own, and accelerators that do nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.vllm.identity import Answer
from benchmarks.vllm.models import Conversation, Model
from guardrail.engines.transformers.rendering import Renderer
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import load
from guardrail.policy.rules import CompiledCondition
from guardrail.types import ALLOW, Array, Message


class Traced:
    """Reads the last prompt token of every prompt in a trace, and scores it by the policies' probes."""

    def __init__(self, model: Model, kv_bytes: int) -> None:
        os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0"}
        from nnsight.modeling.vllm import VLLM
        from vllm.v1.worker.cpu_model_runner import _set_torch_accelerator_to_noop

        from benchmarks.vllm.nnsight_worker import ADDRESS

        _set_torch_accelerator_to_noop()
        VLLM._WORKER_CLS = ADDRESS
        self._active = load(dict(model.policies), None, Plugins())
        self._llm: Any = VLLM(
            model.folder, dtype="float32", dispatch=True, kv_cache_memory_bytes=kv_bytes, max_model_len=512,
            distributed_executor_backend="uni",
        )  # fmt: skip
        self._renderer = Renderer(self._llm.tokenizer)

    def ask(self, prompts: Sequence[Conversation]) -> list[Answer]:
        """Scores and decisions; nothing is said."""
        return [self._one(self._renderer.render([Message(**turn) for turn in p]).ids) for p in prompts]

    def _one(self, ids: Sequence[int]) -> Answer:
        plan = self._active.plan
        found = {rule: self._score(rule.conditions[0], ids) for rule in plan.rules}
        fired = [rule.action for rule, score in found.items() if rule.conditions[0].holds(score)]
        action = max(fired, key=lambda name: plan.strengths.get(name, 0), default=ALLOW)
        return Answer(action, "", tuple(found.values()))

    def _score(self, condition: CompiledCondition, ids: Sequence[int]) -> float:
        assert condition.layer is not None
        assert self._active.calibration is not None
        probe = self._active.vectors[condition.trait].probe_at(condition.layer)
        projection = float(self._state(ids, condition.layer) @ probe.weights) + probe.offset
        return self._active.calibration.probes[condition.trait][condition.layer].standardise(projection)

    def _state(self, ids: Sequence[int], layer: int) -> Array:
        """[d_model] float32: vLLM's blocks hand on the stream in two parts."""
        block = self._llm.model.layers[layer - 1]
        with self._llm.trace(list(ids), temperature=0.0, max_tokens=1):
            hidden, residual = block.output
            state = (hidden + residual)[-1].clone().save()
        return np.asarray(state.float().numpy(), np.float32)

    def close(self) -> None:
        """Nothing is left over: the engine ends with the process."""
