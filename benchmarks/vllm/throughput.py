"""Requests a second of vLLM with the guard and without, many at once, round by round in turns.

All prompts are allowed and all replies are of one length. Prompts are new in every round, so that nothing
comes from the prefix cache. Processor time is that of this process and of the processes of vLLM.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any

import psutil
from guardrail_vllm.engine import VllmEngine
from guardrail_vllm.model import VllmModel
from transformers import AutoTokenizer

from benchmarks.vllm.bare import Bare
from benchmarks.vllm.models import Model
from benchmarks.vllm.rounds import Rounds
from guardrail.bench.plans import PlanEvaluator, allowing
from guardrail.engines import Prompt
from guardrail.types import Sampling

THREADS, REQUESTS = 64, 128
PROMPT = 64
POLICIES = 4
KV_BYTES = 1 << 29
GOAL = 0.97


def measured(model: Model, seconds: float, compiled: bool = False) -> dict[str, Any]:
    """Rounds in turns for so long, and their ratios. `compiled`: the layers of both sides."""
    tokenizer = AutoTokenizer.from_pretrained(model.folder)
    options = {
        "dtype": "float32", "kv_cache_memory_bytes": KV_BYTES, "max_model_len": 512,
        "enforce_eager": not compiled,
    }  # fmt: skip
    engine = VllmEngine(VllmModel(model.folder, options), tokenizer, "builtin:plain")
    bare = Bare(model, KV_BYTES, compiled)
    rounds = Rounds(model, "compiled" if compiled else "eager")
    try:
        _measure(rounds, engine, bare, model, seconds)
    finally:
        engine.close()
        bare.close()
    return {
        "threads": THREADS, "requests": REQUESTS, "prompt_tokens": PROMPT, "reply_tokens": model.tokens,
        "policies": POLICIES, "compiled": compiled, "goal": GOAL, **rounds.numbers(),
    }  # fmt: skip


def _measure(rounds: Rounds, engine: VllmEngine, bare: Bare, model: Model, seconds: float) -> None:
    width, layers = engine.fingerprint.d_model, engine.fingerprint.layers
    plan = allowing(width, (layers // 3, 2 * layers // 3), POLICIES)
    ends = frozenset(engine.tokenizer.all_special_ids)
    sampling = Sampling(
        temperature=0, max_new_tokens=model.tokens, logit_bias=tuple((token, -100.0) for token in ends)
    )
    evaluator = PlanEvaluator(plan)

    def guarded(ids: Sequence[int]) -> None:
        (found,) = engine.reply([Prompt(tuple(ids))], plan, evaluator, sampling, lambda event: None)
        assert found.new_tokens == model.tokens, found

    def plain(ids: Sequence[int]) -> None:
        assert len(bare.wait(bare.one(ids, model.tokens, fixed=True))) == model.tokens

    drawn = random.Random(len(rounds.pairs))
    known = [token for token in range(10, engine.fingerprint.vocab_size) if token not in ends]

    def prompts() -> list[list[int]]:
        return [drawn.choices(known, k=PROMPT) for _ in range(REQUESTS)]

    sides: dict[str, Callable[[Sequence[int]], None]] = {"guarded": guarded, "bare": plain}
    with ThreadPoolExecutor(THREADS) as threads:
        for ask in sides.values():
            list(threads.map(ask, prompts()[:32]))
        made = {name: partial(_round, threads, ask, prompts) for name, ask in sides.items()}
        rounds.go_on(made, seconds)


def _round(
    threads: ThreadPoolExecutor,
    ask: Callable[[Sequence[int]], None],
    draw: Callable[[], Sequence[Sequence[int]]],
) -> dict[str, float]:
    prompts = draw()
    began, worked = perf_counter(), _processor_s()
    list(threads.map(ask, prompts))
    count = len(prompts)
    return {"wall": count / (perf_counter() - began), "cpu": count / (_processor_s() - worked)}


def _processor_s() -> float:
    here = psutil.Process()
    times = [one.cpu_times() for one in (here, *here.children(recursive=True)) if one.is_running()]
    return sum(one.user + one.system for one in times)
