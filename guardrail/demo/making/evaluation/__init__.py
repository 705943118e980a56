# pyright: basic
"""Measures a demo model, its vectors and its calibration on test material that nothing else ever saw."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from guardrail.calibration.values import Calibration
from guardrail.demo import material, world
from guardrail.demo.making.evaluation import behaviour
from guardrail.demo.making.evaluation.capability import capability
from guardrail.demo.making.evaluation.detection import detection
from guardrail.demo.making.evaluation.monitoring import monitoring
from guardrail.demo.making.evaluation.results import Evaluation
from guardrail.demo.making.evaluation.steering import steering
from guardrail.demo.making.runner import Runner
from guardrail.vectors.values import TraitVectors

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The files of one demo model; `raw` holds the difference vectors before orthogonalisation."""

    model: Path
    vectors: Path
    calibration: Path
    raw: Path


def evaluate(made: Made, *, seed: int, steered: bool) -> Evaluation:
    """All tables; those of steering only if `steered`."""
    runner = Runner(made.model)
    vectors, calibration = TraitVectors.load(made.vectors), Calibration.load(made.calibration)
    raw = TraitVectors.load(made.raw)
    files = (str(made.vectors.resolve()), str(made.calibration.resolve()))
    return Evaluation(
        seed=seed,
        conditions=_timed("conditions", lambda: behaviour.conditions(runner)),
        history=_timed("earlier turns", lambda: behaviour.history(runner)),
        pressure=_timed("pressure", lambda: behaviour.pressure(runner)),
        coherence=_timed("coherence", lambda: behaviour.coherence(runner)),
        capability=_timed("capability", lambda: capability(runner, behaviour.SEED)),
        detection=_timed("detection", lambda: detection(runner, vectors, calibration, raw)),
        monitoring={p: _timed(p, lambda p=p: monitoring(runner, vectors, p)) for p in world.POLES},
        steering={t: _timed(t, lambda t=t: steering(runner, t, *files)) for t in world.TRAITS}
        if steered
        else {},
        reply_seconds=_reply_seconds(runner),
        load_seconds=_load_seconds(made.model),
    )


def _timed(name: str, measure: Callable[[], T]) -> T:
    began = time.monotonic()
    result = measure()
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return result


def _reply_seconds(runner: Runner) -> float:
    """A reply of 40 tokens on one thread."""
    threads, drawn = torch.get_num_threads(), material.benign(1, 1, "test")
    ids = torch.tensor([runner.ids(drawn[0])])
    torch.set_num_threads(1)
    began = time.perf_counter()
    runner.model.generate(ids, attention_mask=torch.ones_like(ids), min_new_tokens=40, max_new_tokens=40)
    torch.set_num_threads(threads)
    return time.perf_counter() - began


def _load_seconds(folder: Path) -> float:
    began = time.perf_counter()
    Runner(folder)
    return time.perf_counter() - began
