"""`python -m benchmarks.compiled`: decoding over a static cache that torch.compile has compiled, on 12 x 64.

Every row is divided by the bare model, compiled in the same way. Allowed replies keep the compiled graph;
steered ones run eagerly. The last two rows show a rejected design: steering as a gated buffer in the graph
from the beginning, which would slow down every allowed reply too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CompileConfig

from benchmarks.cases import ignore
from benchmarks.runner import pooled
from benchmarks.subjects import ALLOW, LAUNCH_BOUND, Subject, launch_bound
from guardrail.bench import results
from guardrail.bench.cases import Case, endless, greedy, plainly
from guardrail.bench.pairs import PAIRS
from guardrail.bench.plans import STRENGTH, PlanEvaluator, allowing, steering
from guardrail.bench.tables import cells
from guardrail.engines.transformers.engine import TransformersEngine
from guardrail.engines.transformers.executor import hidden_of
from guardrail.policy.plan import Plan

OUT = Path(__file__).parent / "results" / "compiled.json"


class Gate(nn.Module):
    """A direction and whether it is added, as buffers of the graph."""

    direction: Tensor
    gate: Tensor

    def __init__(self, d_model: int, is_open: bool) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(0)
        self.register_buffer("direction", STRENGTH * torch.randn(d_model, generator=source))
        self.register_buffer("gate", torch.tensor(float(is_open)))

    def forward(self, block: nn.Module, arguments: object, output: Any) -> Any:
        """A forward hook of a block."""
        steered = hidden_of(output) + self.gate * self.direction
        return (steered, *output[1:]) if isinstance(output, tuple) else steered


def models() -> Subject:
    """The goal is that of replies that are not compiled."""
    return replace(launch_bound(), name="12 x 64, compiled", goals=ALLOW)


def arguments(given: Subject, compiled: bool = True) -> dict[str, Any]:
    """Of `generate`."""
    config = CompileConfig(mode="default")
    setattr(config, "_compile_all_devices", True)  # noqa: B010  on a CPU transformers compiles nothing by itself
    how = {"compile_config": config} if compiled else {"disable_compile": True}
    return {**greedy(given.inputs, given.new_tokens), "cache_implementation": "static", **how}


def cases(given: Subject) -> Iterator[Case]:
    """Each against the compiled bare model."""
    yield case(given, "bare, eager", plainly(given.bare, arguments(given, compiled=False)))
    with closing(TransformersEngine(given.model, given.tokenizer, "builtin:plain")) as engine:
        layers, width = given.layers, given.d_model
        yield case(given, "allow", guarded(given, engine, allowing(width, layers, 1)))
        one = steering(width, layers, 1, layers)
        yield case(given, "steer one layer, eagerly", guarded(given, engine, one), same=False)
    yield case(given, "a closed gate in the graph", gated(given, is_open=False))
    yield case(given, "an open gate in the graph", gated(given, is_open=True), same=False)


def case(given: Subject, name: str, call: Any, same: bool = True) -> Case:
    """`same`: the reply is the bare model's."""

    def holds(found: Tensor, expected: Tensor) -> bool:
        return found.shape == expected.shape and (not same or torch.equal(found, expected))

    return Case(name=name, guarded=call, bare=plainly(given.bare, arguments(given)), holds=holds)


def guarded(given: Subject, engine: TransformersEngine, plan: Plan) -> Any:
    """`engine.generate`; its output."""
    evaluator = PlanEvaluator(plan)
    return lambda: engine.generate(plan, evaluator, ignore, arguments(given)).output


def gated(given: Subject, is_open: bool) -> Any:
    """A third model, with a gate at the layer that is steered, before anything is compiled."""
    model = endless(LAUNCH_BOUND())
    gate = Gate(given.d_model, is_open)
    model.model.layers[given.layers[-1] - 1].register_forward_hook(gate)
    return plainly(model, arguments(given))


def main() -> int:
    """Exit code 0, or 1 if a goal is missed or undecided."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled", description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = list(pooled(models, cases, chosen.pairs))
    for one in found:
        print(*cells(one), sep="  ")
    results.write(results.report(found, "cpu", "wall"), chosen.out)
    return int(results.missed(found))


if __name__ == "__main__":
    raise SystemExit(main())
