# pyright: basic
"""Measures the demo model, its vectors and its calibration on test material that nothing else ever saw."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from guardrail.calibration import Calibration
from guardrail.demo import MODEL, material, world
from guardrail.demo.evaluation import behaviour
from guardrail.demo.evaluation.capability import capability
from guardrail.demo.evaluation.detection import detection
from guardrail.demo.evaluation.monitoring import monitoring
from guardrail.demo.evaluation.results import Evaluation
from guardrail.demo.evaluation.steering import steering
from guardrail.demo.runner import Runner
from guardrail.types import Array
from guardrail.vectors import TraitVectors

T = TypeVar("T")


def evaluate(
    runner: Runner,
    vectors: TraitVectors,
    calibration: Calibration,
    differences: Mapping[str, Array],
    *,
    seed: int,
    steered: bool,
) -> Evaluation:
    """All tables; steering, by the guard on the shipped files, only where asked."""
    return Evaluation(
        seed=seed,
        conditions=_timed("conditions", lambda: behaviour.conditions(runner)),
        history=_timed("earlier turns", lambda: behaviour.history(runner)),
        pressure=_timed("pressure", lambda: behaviour.pressure(runner)),
        coherence=_timed("coherence", lambda: behaviour.coherence(runner)),
        capability=_timed("capability", lambda: capability(runner, behaviour.SEED)),
        detection=_timed("detection", lambda: detection(runner, vectors, calibration, differences)),
        monitoring={p: _timed(p, lambda p=p: monitoring(runner, vectors, p)) for p in world.POLES},
        steering={t: _timed(t, lambda t=t: steering(runner, t)) for t in world.TRAITS} if steered else {},
        reply_seconds=_reply_seconds(runner),
        load_seconds=_load_seconds(),
    )


def _timed(name: str, measure: Callable[[], T]) -> T:
    began = time.monotonic()
    result = measure()
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return result


def _reply_seconds(runner: Runner) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ids = torch.tensor([runner.encode(material.benign(1, 1, "test")[0].messages)])
    began = time.perf_counter()
    runner.model.generate(ids, attention_mask=torch.ones_like(ids), min_new_tokens=40, max_new_tokens=40)
    torch.set_num_threads(threads)
    return time.perf_counter() - began


def _load_seconds() -> float:
    began = time.perf_counter()
    Runner.load(MODEL)
    return time.perf_counter() - began
