"""What the guard costs inside vLLM's worker: two engines in one process, guarded and not, in turns.

Neither has threads or processes in front of it, so processor time is exact also while others use the machine.
64 prompts are handed over at once. Nothing comes from the prefix cache.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from tempfile import mkdtemp
from time import monotonic, perf_counter, process_time
from typing import Any

from guardrail_vllm.flags import LOGITS
from guardrail_vllm.model import OWN
from guardrail_vllm.plans import packed
from guardrail_vllm.worker.asked import Asked

from benchmarks.vllm.models import Model
from guardrail.bench.plans import allowing
from guardrail.bench.ratios import interval

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
    rounds = _rounds(sides, int(config.vocab_size), seconds)
    told = 0
    while socket.poll(10):
        socket.recv()
        told += 1
    assert told, "the worker has decided on nothing"
    return {
        "rows": ROWS, "requests": REQUESTS, "prompt_tokens": PROMPT, "reply_tokens": model.tokens,
        "policies": POLICIES, "rounds": len(rounds), "goal": GOAL,
        "ratio_wall": interval([one["wall"] / other["wall"] for one, other in rounds]),
        "ratio_processor": interval([one["cpu"] / other["cpu"] for one, other in rounds]),
        "guarded_requests_per_second": [one["wall"] for one, _ in rounds],
        "bare_requests_per_second": [other["wall"] for _, other in rounds],
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


def _rounds(
    sides: dict[str, Callable[[Sequence[Any]], None]], vocabulary: int, seconds: float
) -> list[tuple[dict[str, float], dict[str, float]]]:
    drawn = random.Random(0)

    def prompts(count: int = REQUESTS) -> list[dict[str, Any]]:
        return [{"prompt_token_ids": drawn.choices(range(10, vocabulary), k=PROMPT)} for _ in range(count)]

    for ask in sides.values():
        ask(prompts(ROWS))
    found: list[tuple[dict[str, float], dict[str, float]]] = []
    end = monotonic() + seconds
    while monotonic() < end or len(found) < 4:
        order = list(sides) if len(found) % 2 == 0 else list(sides)[::-1]
        one = {name: _round(sides[name], prompts()) for name in order}
        found.append((one["guarded"], one["bare"]))
        print(
            {name: {key: round(value, 2) for key, value in it.items()} for name, it in one.items()},
            flush=True,
        )
    return found


def _round(ask: Callable[[Sequence[Any]], None], prompts: Sequence[Any]) -> dict[str, float]:
    began, worked = perf_counter(), process_time()
    ask(prompts)
    return {
        "wall": len(prompts) / (perf_counter() - began),
        "cpu": len(prompts) / (process_time() - worked),
    }
