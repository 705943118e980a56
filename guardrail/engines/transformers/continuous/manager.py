"""transformers' manager of continuous batching, made for a guarded model: it schedules, the guard decides.

Tested with transformers 5.24. It keeps the paged cache and says whose tokens are computed in which pass.
Every pass goes through the guard, which also chooses the tokens and says when a reply ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.util import find_spec
from math import ceil
from typing import Any

import torch
from torch import Tensor

from guardrail.engines.transformers.blocks import text_config
from guardrail.engines.transformers.model import LocalModel
from guardrail.errors import EvaluationError, ModelError

Run = Callable[[dict[str, Any], Sequence[Any]], Tensor]
"""Runs a pass: what the manager hands to the model, and whose tokens it has put in. Logits [1, rows, V]."""

ATTENTION = ("sdpa", "flash_attention_2", "flash_attention_3")
TESTED = "5.24"
"""The release of transformers under which batching was tested."""
PAGE = 32
"""Tokens in a page of the cache."""
CPU_TOKENS, CPU_SHARE = 16_384, 0.25
"""The cache of a model on a CPU: this many tokens, unless that is more than this share of the memory."""
CPU_PASS = 256
"""Most tokens of a pass on a CPU: replies under way wait for the prompts in their pass."""


class Facade:
    """The model as the manager sees it. It cannot switch the model's mode or its attention."""

    def __init__(self, local: LocalModel, run: Callable[[dict[str, Any]], Tensor]) -> None:
        self._inner, self._run = local.inner, run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, **batch: Any) -> Any:
        return _Output(self._run(batch))

    def eval(self) -> Facade:
        """Nothing: each pass is run in evaluation mode."""
        return self

    def set_attn_implementation(self, name: str) -> None:
        """Raises ModelError: the model stays as it is."""
        raise ModelError(f"continuous batching asks for the attention `{name}`; load the model with `sdpa`")

    def _supports_logits_to_keep(self) -> bool:
        return True


class _Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Router:
    """Takes what the manager says of requests. It only says which have failed: others end by our word."""

    def __init__(self, failed: Callable[[str, EvaluationError], None]) -> None:
        self._failed = failed

    def deliver(self, output: Any) -> None:
        """Told of one request."""
        if output.error is not None:
            self._failed(output.request_id, EvaluationError(f"the batch failed: {output.error}"))

    def deliver_batch(self, outputs: Sequence[Any]) -> None:
        """Told of several."""
        for output in outputs:
            self.deliver(output)

    def fail_and_deliver(self, state: Any, error: Exception) -> None:
        """Told that a request has failed, before or while it was generated."""
        self._failed(state.request_id, EvaluationError(f"the batch failed: {error}"))


class Manager:
    """One manager with its cache and its thread. Raises ModelError if the model cannot be batched.

    `failed` is told which request has failed with the manager.
    """

    def __init__(
        self, local: LocalModel, rows: int, run: Run, failed: Callable[[str, EvaluationError], None]
    ) -> None:
        _check(local)
        self._local = local
        self._ours = self._made(Facade(local, lambda batch: run(batch, self._scheduled)), failed, rows)

    def _made(self, facade: Facade, failed: Callable[[str, EvaluationError], None], rows: int) -> Any:
        from transformers import GenerationConfig
        from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager

        config = GenerationConfig(do_sample=False, num_beams=1)
        made = ContinuousBatchingManager(facade, config, _configuration(self._local, rows))  # pyright: ignore[reportArgumentType]
        made.output_router = Router(failed)  # pyright: ignore[reportAttributeAccessIssue]
        devices = [self._local.device] if self._local.device.type == "cuda" else []
        # it seeds the process
        with torch.random.fork_rng(devices):
            try:
                made.warmup()
            except (MemoryError, torch.OutOfMemoryError) as error:
                raise ModelError(f"there is no memory for the cache of a batch: {error}") from error
        return made

    @property
    def _scheduled(self) -> Sequence[Any]:
        return self._ours.batch_processor.inputs_and_outputs.requests_in_batch

    @property
    def tokens(self) -> int:
        """How many tokens the cache has room for, in whole pages."""
        return int(self._ours.batch_processor.cache.num_blocks) * self.page

    @property
    def page(self) -> int:
        """Tokens of a page: what a request takes from the cache is a multiple of it."""
        return int(self._ours.continuous_batching_config.page_size)

    @property
    def slides(self) -> bool:
        """Whether some layers keep a window of tokens only."""
        return "sliding_attention" in self._ours.batch_processor.cache.cache_allocators

    @property
    def runs(self) -> bool:
        """Whether its thread is alive."""
        return self._ours.is_running()

    def start(self) -> None:
        """Start the thread. It never keeps the program running."""

        def begin() -> None:
            with self._local.without_autograd():
                self._ours.start()

        # threads are daemons if the one that starts them is
        starter = threading.Thread(target=begin, daemon=True)
        starter.start()
        starter.join()

    def add(self, name: str, ids: Sequence[int], longest: int) -> None:
        """Take a request in. Raises EvaluationError if the manager has failed."""
        # it never ends a reply: one token more than wanted, and no end token
        added = self._ours.add_request(list(ids), name, longest + 1, eos_token_id=-1)
        if added is None:
            raise EvaluationError("continuous batching has stopped")

    def drop(self, name: str) -> None:
        """Forget a request before the next pass, and free its part of the cache."""
        self._ours.cancel_request(name)

    def stop(self) -> None:
        """End the thread after the pass under way, and free the cache."""
        if self._ours.is_running():
            self._ours.stop(block=True, hard_stop=True)
        self._ours.batch_processor = None


def _check(local: LocalModel) -> None:
    inner = local.inner
    # without it the manager takes the memory of most machines for 0 bytes
    if local.device.type == "cpu" and find_spec("psutil") is None:
        raise ModelError("continuous batching on a CPU needs psutil: pip install psutil")
    if len(set(getattr(inner, "hf_device_map", {}).values())) > 1:
        raise ModelError("a model on several devices cannot be batched continuously")
    attention = inner.config._attn_implementation
    if attention not in ATTENTION:
        raise ModelError(
            f"continuous batching needs the attention `sdpa` or a flash attention, and this model uses "
            f"`{attention}`: load it with attn_implementation='sdpa'"
        )


def _configuration(local: LocalModel, rows: int) -> Any:
    from transformers import ContinuousBatchingConfig, __version__

    settings: dict[str, Any] = {
        "page_size": PAGE,
        "max_requests_per_batch": rows,
        "safety_margin": 0.0,
        # what is shared is not computed again, so a prompt that begins like another would not be read
        "allow_block_sharing": False,
        # a graph would run without what reads and steers, and the passes after the next begin too early
        "use_cuda_graph": False,
        "use_async_batching": False,
        "max_blocks_per_request": 0,
        "auto_switch_to_flash": False,
    }
    if local.device.type == "cpu":
        settings |= {"max_batch_tokens": CPU_PASS, "num_blocks": ceil(_cpu_tokens(local) / PAGE)}
    if not settings.keys() <= {field.name for field in fields(ContinuousBatchingConfig)}:
        raise ModelError(
            f"continuous batching needs transformers {TESTED} or newer, and this is {__version__}"
        )
    return ContinuousBatchingConfig(**settings)


def _cpu_tokens(local: LocalModel) -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 33
    most = int(memory * CPU_SHARE) // _token_bytes(local)
    return max(PAGE, min(most, max(CPU_TOKENS, min(local.max_tokens, 2 * CPU_TOKENS))))


def _token_bytes(local: LocalModel) -> int:
    """What one token takes in the cache."""
    config: Any = text_config(local.inner)
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return 2 * config.num_hidden_layers * kept * width * local.inner.dtype.itemsize
