"""Is what vLLM does under guard what transformers does under guard, and what vLLM does without one?

Each side answers the same prompts and writes a line for each: an interrupted run goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from benchmarks.vllm.models import RUNS, Conversation, Model
from guardrail import Guard
from guardrail.types import Decision, Reply

BATCH = 32
CHUNK = 16
SIDES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "no-cache": {"enable_prefix_caching": False},
    # every 16th prompt is split right before its last token
    "chunks": {"max_num_batched_tokens": CHUNK, "max_num_seqs": CHUNK, "enable_prefix_caching": False},
    "compiled": {"enforce_eager": False},
}
"""Sides of vLLM under guard, with what it is told."""
KV_BYTES = 1 << 29


@dataclass(frozen=True, slots=True)
class Answer:
    """What one side made of a prompt. `scores`: in the order of the policies."""

    action: str
    text: str
    scores: tuple[float, ...] = ()
    steered: int = 0


def file(model: Model, side: str) -> Path:
    """Where the answers of a side are."""
    return RUNS / f"{model.name}-{side}.jsonl"


def read(model: Model, side: str) -> list[Answer]:
    """The answers so far."""
    path = file(model, side)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Answer(**json.loads(line)) for line in lines]


def run(model: Model, side: str, count: int, seconds: float) -> int:
    """Answer prompts for so long; how many are answered by then."""
    prompts = model.prompts(count)
    done = len(read(model, side))
    if done >= len(prompts):
        return done
    RUNS.mkdir(parents=True, exist_ok=True)
    size = 1 if side == "chunks" else BATCH
    with _asking(model, side) as ask, file(model, side).open("a", encoding="utf-8") as out:
        end = monotonic() + seconds
        while done < len(prompts) and monotonic() < end:
            for answer in ask(prompts[done : done + size]):
                out.write(json.dumps(_fields(answer)) + "\n")
                done += 1
            out.flush()
    return done


def _fields(answer: Answer) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in Answer.__slots__}


class _asking:
    """Opens a side, for a `with` block."""

    def __init__(self, model: Model, side: str) -> None:
        self._model, self._side = model, side

    def __enter__(self) -> Callable[[Sequence[Conversation]], list[Answer]]:
        import torch

        options: dict[str, Any] = {"dtype": torch.float32}
        if self._side == "bare":
            from benchmarks.vllm.bare import Bare

            self._open: Any = Bare(self._model, KV_BYTES)
            return lambda prompts: [Answer("allow", text) for text in self._open.ask(prompts)]
        if self._side == "nnsight":
            from benchmarks.vllm.traced import Traced

            self._open = Traced(self._model, KV_BYTES)
            return self._open.ask
        if self._side == "reference":
            engine = "transformers-hooks"
        else:
            engine = "vllm"
            options |= {
                "kv_cache_memory_bytes": KV_BYTES,
                "max_model_len": 512,
                **SIDES[self._side],
            }
        self._open = Guard.from_pretrained(
            self._model.folder, dict(self._model.policies), engine=engine, **options
        )
        return self._ask

    def _ask(self, prompts: Sequence[Conversation]) -> list[Answer]:
        replies = self._open.chat_many(prompts, temperature=0, max_new_tokens=self._model.tokens)
        return [_answer(reply) for reply in replies]

    def __exit__(self, *_: object) -> None:
        self._open.close()


def _answer(reply: Reply) -> Answer:
    decision: Decision = reply.decision
    scores = tuple(float(score.score) for score in decision.scores)
    return Answer(decision.action, reply.text, scores, reply.steered_passes)


# --- comparing ----------------------------------------------------------------------------------------


def compared(model: Model) -> dict[str, Any]:
    """Numbers for each side of vLLM, on the prompts that all sides involved have answered."""
    reference, bare = read(model, "reference"), read(model, "bare")
    found = {side: _side(read(model, side), reference, bare) for side in SIDES}
    return {side: numbers for side, numbers in found.items() if numbers}


def against_nnsight(model: Model) -> dict[str, Any]:
    """Scores and decisions of nnsight's integration beside those of vLLM under guard."""
    return _scores(read(model, "nnsight"), read(model, "default"))


def _scores(ours: Sequence[Answer], reference: Sequence[Answer]) -> dict[str, Any]:
    """What two sides read and decide on the prompts that both have answered."""
    pairs = list(zip(ours, reference, strict=False))
    if not pairs:
        return {}
    read = [(one.scores, other.scores) for one, other in pairs if one.scores and other.scores]
    apart = np.array([_apart(*both) for both in read])
    return {
        "prompts": len(pairs),
        "not_evaluated": len(pairs) - len(read),
        "actions": {
            name: sum(one.action == name for one, _ in pairs) for name in ("allow", "steer", "block")
        },
        "score_difference_max": float(apart.max()),
        "score_difference_median": float(np.median(apart)),
        "decisions_equal": sum(one.action == other.action for one, other in pairs),
    }


def _side(ours: Sequence[Answer], reference: Sequence[Answer], bare: Sequence[Answer]) -> dict[str, Any]:
    pairs = list(zip(ours, reference, strict=False))
    if not pairs:
        return {}
    steered = [(one, other) for one, other in pairs if one.action == other.action == "steer"]
    allowed = [(one, other) for one, other in zip(ours, bare, strict=False) if one.action == "allow"]
    return {
        **_scores(ours, reference),
        "allowed": len(allowed),
        "allowed_equal_bare_vllm": sum(one.text == other.text for one, other in allowed),
        "steered": len(steered),
        "steered_equal_transformers": sum(one.text == other.text for one, other in steered),
    }


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest difference of two rows of scores, relative where a score is above 1."""
    one, other = np.array(ours), np.array(theirs)
    return float(np.max(np.abs(one - other) / np.maximum(1.0, np.abs(other))))
