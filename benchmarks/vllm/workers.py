"""What the guard costs inside vLLM's worker: two engines in one process, guarded and not, in turns.

Neither has threads or processes in front of it, so processor time is exact also while others use the machine.
64 prompts are handed over at once. Nothing comes from the prefix cache.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from functools import partial
from tempfile import mkdtemp
from time import perf_counter, process_time
from typing import Any

from guardrail_vllm.flags import LOGITS
from guardrail_vllm.model import OWN
from guardrail_vllm.plans import packed
from guardrail_vllm.worker.asked import Asked

from benchmarks.vllm.models import Model
from benchmarks.vllm.rounds import Rounds
from guardrail.bench.plans import allowing

ROWS, REQUESTS, PROMPT, POLICIES = 64, 64, 32, 4
GOAL = 0.97


def measured(model: Model, seconds: float) -> dict[str, Any]:
    """Rounds in turns for so long, and their ratios."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0"}
    import zmq

    socket = zmq.Context.instance().socket(zmq.PULL)
    socket.bind(address := f"ipc://{mkdtemp(prefix='guardrail-')}/reports")
    # in this order: vLLM puts the extension into the class of all later workers of the process
    bare = _made(model, {})
    guarded = _guarded(model)
    config = guarded.llm_engine.vllm_config.model_config.hf_text_config
    layers = int(config.num_hidden_layers)
    plan = allowing(int(config.hidden_size), (layers // 3, 2 * layers // 3), POLICIES)
    guarded.collective_rpc("guardrail_plan", args=("plan", packed(plan)))
    extra = Asked(key="x", plan=plan, to=address).arguments("plan")
    sides = {"guarded": _asking(guarded, model, extra), "bare": _asking(bare, model, None)}
    rounds = Rounds(model, "workers")
    _measure(rounds, sides, int(config.vocab_size), seconds)
    told = 0
    while socket.poll(10):
        socket.recv()
        told += 1
    assert told, "the worker has decided on nothing"
    return {
        "rows": ROWS, "requests": REQUESTS, "prompt_tokens": PROMPT, "reply_tokens": model.tokens,
        "policies": POLICIES, "goal": GOAL, **rounds.numbers(),
    }  # fmt: skip


def _made(model: Model, more: dict[str, Any]) -> Any:
    from vllm import LLM

    return LLM(
        model.folder, dtype="float32", max_model_len=512, max_num_seqs=ROWS, kv_cache_memory_bytes=1 << 29,
        enforce_eager=True, enable_prefix_caching=False, skip_tokenizer_init=True, **more,
    )  # fmt: skip


def _guarded(model: Model) -> Any:
    own = {name: OWN[name] for name in ("worker_extension_cls", "scheduler_cls")}
    return _made(model, {**own, "logits_processors": [LOGITS]})


def _asking(llm: Any, model: Model, extra: dict[str, Any] | None) -> Callable[[Sequence[Any]], None]:
    from vllm import SamplingParams

    parameters = SamplingParams(
        temperature=0, max_tokens=model.tokens, ignore_eos=True, detokenize=False, extra_args=extra
    )

    def ask(prompts: Sequence[Any]) -> None:
        found = llm.generate(prompts, parameters, use_tqdm=False)
        assert all(len(one.outputs[0].token_ids) == model.tokens for one in found)

    return ask


def _measure(
    rounds: Rounds, sides: dict[str, Callable[[Sequence[Any]], None]], vocabulary: int, seconds: float
) -> None:
    drawn = random.Random(len(rounds.pairs))

    def prompts(count: int = REQUESTS) -> list[dict[str, Any]]:
        return [{"prompt_token_ids": drawn.choices(range(10, vocabulary), k=PROMPT)} for _ in range(count)]

    for ask in sides.values():
        ask(prompts(ROWS))
    rounds.go_on({name: partial(_round, ask, prompts) for name, ask in sides.items()}, seconds)


def _round(ask: Callable[[Sequence[Any]], None], draw: Callable[[], Sequence[Any]]) -> dict[str, float]:
    prompts = draw()
    began, worked = perf_counter(), process_time()
    ask(prompts)
    return {
        "wall": len(prompts) / (perf_counter() - began),
        "cpu": len(prompts) / (process_time() - worked),
    }
