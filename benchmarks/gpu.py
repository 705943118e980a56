"""`python -m benchmarks.gpu`: the same cases on CUDA, on Qwen2.5 shapes with random weights in bf16.

Installs nothing and imports only torch, transformers, nnsight, numpy and pydantic. Weights are made on the
device. What does not fit into the time, the memory or the machine is reported as not measured.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks import cases, results
from benchmarks.pairs import PAIRS, WARM_UP, Clock, cuda_clock, wall_clock
from benchmarks.results import Row, not_measured
from benchmarks.runner import row
from benchmarks.subjects import ALLOW, BLOCK, STEER, UNCHANGED, Subject, subject
from guardrail.testing import tiny_tokenizer

GOALS = ALLOW | STEER | BLOCK | {"after close": UNCHANGED}
NAMES = (
    "allow, first token",
    "block at the middle",
    "check",
    "allow",
    "steer one layer",
    "steer all layers",
    "after close",
)
PROMPT, NEW_TOKENS, POLICIES = 512, 64, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a Qwen2.5 model."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tie_word_embeddings: bool

    @property
    def read(self) -> tuple[int, ...]:
        """Three layers, the last in the middle."""
        depth = self.num_hidden_layers
        return (depth // 4, depth * 3 // 8, depth // 2)


SMALL = Shape(
    name="Qwen2.5-0.5B shape",
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    vocab_size=151936,
    tie_word_embeddings=True,
)
LARGE = Shape(
    name="Qwen2.5-7B shape",
    hidden_size=3584,
    intermediate_size=18944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    vocab_size=152064,
    tie_word_embeddings=False,
)
TINY = Shape(
    name="tiny",
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=8,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=512,
    tie_word_embeddings=True,
)


class OutOfTime(Exception):
    """The next case would not end in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """How this run measures, and when it has to be over."""

    device: str
    pairs: int
    clock: Clock
    deadline: float

    def measure(self, model: Subject, case: cases.Case) -> Row:
        """One row. Raises OutOfTime before a measurement that would not end in time."""
        case.guarded(), case.bare()
        seconds = (self.clock(case.guarded) + self.clock(case.bare)) / 1e3
        if perf_counter() + seconds * (self.pairs + WARM_UP + 1) > self.deadline:
            raise OutOfTime
        return row(model, case, self.pairs, self.clock)


def main() -> int:
    """0, 1 where a goal is missed or undecided, 2 where the device is not there."""
    arguments = parser().parse_args()
    shapes = (TINY,) if arguments.tiny else (SMALL, LARGE)
    if not arguments.list and arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing was measured (`--device cpu --tiny` is a dry run)")
        return 2
    name = "gpu-dry-run.json" if arguments.tiny else "gpu.json"
    if arguments.list:
        results.write(results.Report(cases=tuple(planned(shapes))), arguments.out / name)
        return 0
    found = run(shapes, session(arguments), arguments.tiny)
    clock = "events" if arguments.device == "cuda" else "wall"
    results.write(results.report(found, arguments.device, clock), arguments.out / name)
    print(results.markdown(found))
    return int(any(row.verdict in ("fail", "inconclusive") for row in found) and not arguments.tiny)


def session(arguments: argparse.Namespace) -> Session:
    """What the command line asks for."""
    torch.set_grad_enabled(False)
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    clock = cuda_clock if arguments.device == "cuda" else wall_clock
    deadline = perf_counter() + arguments.minutes * 60
    return Session(device=arguments.device, pairs=arguments.pairs, clock=clock, deadline=deadline)


def planned(shapes: tuple[Shape, ...]) -> list[Row]:
    """Every row, unmeasured."""
    return [missing(shape, name, "not measured") for shape in shapes for name in NAMES]


def missing(shape: Shape, name: str, why: str) -> Row:
    """A row without numbers."""
    return not_measured(f"{shape.name}: {name}", GOALS.get(name), why)


def run(shapes: tuple[Shape, ...], session: Session, tiny: bool) -> list[Row]:
    """All rows in the order of the plan. The larger model goes first, before time runs out."""
    found: dict[str, Row] = {row.name: row for row in planned(shapes)}
    for shape in reversed(shapes):
        for found_row in of_shape(shape, session, tiny):
            print(*results.cells(found_row), sep="  ", flush=True)
            found[found_row.name] = found_row
        free_memory(session.device)
    return list(found.values())


def free_memory(device: str) -> None:
    """Engine and model refer to one another, so that they go only when they are collected."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def of_shape(shape: Shape, session: Session, tiny: bool) -> Iterator[Row]:
    """The rows of one model; where it does not fit into memory, one reason for all of them."""
    try:
        model = made(shape, session.device, tiny)
    except torch.OutOfMemoryError:
        yield from (missing(shape, name, "no memory for the model and its twin") for name in NAMES)
        return
    for case in cases.engine_cases(model):
        yield tried(shape, session, model, case)


def tried(shape: Shape, session: Session, model: Subject, case: cases.Case) -> Row:
    """The row of one case, with the reason where there are no numbers."""
    try:
        return session.measure(model, case)
    except OutOfTime:
        return missing(shape, case.name, "no time left for all pairs")
    except torch.OutOfMemoryError:
        return missing(shape, case.name, "no memory")


def made(shape: Shape, device: str, tiny: bool) -> Subject:
    """The model and its bare twin, with a prompt."""
    prompt, tokens = (32, 8) if tiny else (PROMPT, NEW_TOKENS)
    build = partial(random_model, shape, device)
    return subject(shape.name, build, tiny_tokenizer(), prompt, tokens, shape.read, POLICIES, goals=GOALS)


def random_model(shape: Shape, device: str) -> Any:
    """Random weights, made on the device in bf16; the same each time."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {name: getattr(shape, name) for name in Shape.__slots__ if name != "name"}
    config = Qwen2Config(
        **sizes, max_position_embeddings=4096, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    torch.manual_seed(0)
    with torch.device(device):
        return Qwen2ForCausalLM._from_config(config, dtype=torch.bfloat16).eval()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    made.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    made.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "benchmarks/results")))
    made.add_argument("--pairs", type=int, default=PAIRS)
    made.add_argument("--minutes", type=float, default=8.0, help="start nothing that would end later")
    made.add_argument("--tiny", action="store_true", help="a small model, to see that everything runs")
    made.add_argument("--list", action="store_true", help="write the rows as not measured, and measure none")
    return made


if __name__ == "__main__":
    raise SystemExit(main())
