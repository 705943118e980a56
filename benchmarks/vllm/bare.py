"""vLLM without a guard, asked from threads as the guarded one is."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from itertools import count
from typing import Any

from benchmarks.vllm.models import Conversation, Model
from guardrail.engines.transformers.rendering import Renderer
from guardrail.types import Message


class Bare:
    """An engine of vLLM with nothing of the guard in it. `compiled`: its layers, as vLLM does by default."""

    def __init__(self, model: Model, kv_bytes: int, compiled: bool = False) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
        self._model, self._names = model, count()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        arguments = AsyncEngineArgs(
            model=model.folder, dtype="float32", kv_cache_memory_bytes=kv_bytes, max_model_len=512,
            enforce_eager=not compiled, disable_log_stats=True,
        )  # fmt: skip

        async def made() -> Any:
            return AsyncLLM.from_engine_args(arguments)

        self.llm = self.wait(made())
        self.tokenizer = self.llm.get_tokenizer()
        self._renderer = Renderer(self.tokenizer)

    def wait(self, work: Any) -> Any:
        """The result of work on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def rendered(self, conversation: Conversation) -> tuple[int, ...]:
        """Token ids of a prompt."""
        return self._renderer.render([Message(**turn) for turn in conversation]).ids

    def ask(self, prompts: Sequence[Conversation]) -> list[str]:
        """Greedy replies to prompts, all at once."""

        async def all_of() -> list[Any]:
            return await asyncio.gather(*(self.one(self.rendered(p), self._model.tokens) for p in prompts))

        found = self.wait(all_of())
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in found]

    async def one(self, ids: Sequence[int], tokens: int, fixed: bool = False) -> Sequence[int]:
        """The tokens of one greedy reply. `fixed`: it does not end before."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            temperature=0, max_tokens=tokens, detokenize=False, ignore_eos=fixed,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )  # fmt: skip
        outputs = self.llm.generate({"prompt_token_ids": list(ids)}, parameters, f"bare-{next(self._names)}")
        return [output async for output in outputs][-1].outputs[0].token_ids

    def close(self) -> None:
        """End it."""
        self.llm.shutdown()
