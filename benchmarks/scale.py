"""What one request, one policy and one record cost on the host: `python -m benchmarks.scale`.

Processor time of one thread, the median of rounds that alternate. No language model is needed: products run
on random states of a model's width, decisions on their readings, records go into files. `pipeline` is a tiny
model (4 layers x 32), from messages to decision, with and without the guard. Writes
benchmarks/results/scale.json; benchmarks/scale.md explains it.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import torch

from guardrail import Guard
from guardrail.bench.machine import machine, versions
from guardrail.engines.transformers.ends import Ends
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.pools import Pools
from guardrail.engines.transformers.reading import Reader
from guardrail.plugins.manager import Plugins
from guardrail.policy.decide import decide
from guardrail.policy.loading import load
from guardrail.policy.plan import Plan
from guardrail.testing import (
    CHAT_TEMPLATE,
    hand_made_vectors,
    tiny_fingerprint,
    tiny_model,
    tiny_tokenizer,
)
from guardrail.types import Facts

RESULTS = Path("benchmarks/results/scale.json")
WIDTHS = (576, 4096, 8192)
POLICIES = (1, 8, 64)
ROWS = (1, 64)
BATCH = 32
ROUNDS, SECONDS = 12, 0.03
TEXT = "What is the capital of France, and how many people live there at the moment?"
TURNS = [{"role": "user", "content": TEXT}]


RULE = {"threshold": {"raw": 1e6}, "action": "block"}


@dataclass(frozen=True)
class Times:
    """Microseconds of processor time per call, by condition."""

    conditions: Mapping[str, Callable[[], object]]

    def measured(self) -> dict[str, float]:
        """The medians of rounds that go forwards and backwards through the conditions."""
        counts = {name: self._count(call) for name, call in self.conditions.items()}
        found: dict[str, list[float]] = {name: [] for name in self.conditions}
        for i in range(ROUNDS):
            for name in list(self.conditions) if i % 2 else reversed(self.conditions):
                found[name].append(_seconds(self.conditions[name], counts[name]) * 1e6 / counts[name])
        return {name: round(statistics.median(values), 2) for name, values in found.items()}

    @staticmethod
    def _count(call: Callable[[], object]) -> int:
        """Calls that take about SECONDS."""
        _seconds(call, 3)
        return max(1, int(SECONDS / max(1e-7, _seconds(call, 3) / 3)))


def _seconds(call: Callable[[], object], count: int) -> float:
    begun = process_time()
    for _ in range(count):
        call()
    return process_time() - begun


def plan(folder: Path, width: int, policies: int, layers: int, action: object = "block") -> Plan:
    """So many policies on different traits at one layer, none of which fires."""
    names = [f"t{i}" for i in range(policies)]
    mark = tiny_fingerprint(layers=layers, d_model=width)
    path = folder / f"{width}-{policies}-{layers}.safetensors"
    if not path.exists():
        hand_made_vectors(names, mark).save(path)
    rules = [RULE | {"id": n, "trait": n, "layer": layers // 2, "action": action} for n in names]
    return load({"version": 1, "vectors": str(path), "policies": rules}, mark, Plugins()).plan


def products(folder: Path) -> dict[str, float]:
    """One matrix product for all policies of a layer, by width, policies and rows of the batch."""
    found: dict[str, Callable[[], object]] = {}
    for width in WIDTHS:
        states = {rows: torch.randn(rows, 1, width, dtype=torch.bfloat16) for rows in ROWS}
        for policies in POLICIES:
            reader = Reader(plan(folder, width, policies, layers=2))
            for rows, hidden in states.items():
                name = f"{width} wide, {policies} policies, {rows} rows"
                found[name] = lambda r=reader, h=hidden: r.products(1, h, Pools(Ends(None, 0), len(h)))
    return Times(found).measured()


def decisions(folder: Path) -> dict[str, float]:
    """The pure decision on one prompt, and with its scores written out, as an audit record needs them."""
    found: dict[str, Callable[[], object]] = {}
    for policies in POLICIES:
        made, readings = plan(folder, 576, policies, layers=2), [0.0] * policies
        found[f"{policies} policies"] = lambda p=made, r=readings: decide(p, r, Facts())
        found[f"{policies} policies, scores written out"] = lambda p=made, r=readings: list(
            decide(p, r, Facts()).scores
        )
    return Times(found).measured()


def sizes(folder: Path) -> dict[str, dict[str, float]]:
    """KiB per policy of an 80 x 8192 model: what a plan holds, and what is sent to a worker."""
    cap = {"steer": {"operator": "add", "coefficient": -0.1}}
    every = {"steer": {"operator": "add", "coefficient": -0.1, "layers": "all"}}
    found: dict[str, dict[str, float]] = {}
    for name, action in (("block", "block"), ("steer one layer", cap), ("steer all layers", every)):
        one, nine = (len(pickle.dumps(plan(folder, 8192, n, layers=80, action=action))) for n in (1, 9))
        found[name] = {"sent_kib": round((nine - one) / 8 / 1024, 1)}
    return found


def pipeline(folder: Path) -> dict[str, float]:
    """Per prompt, 32 at a time: the whole guard with and without a log, and the bare forward pass."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    path = folder / "tiny.safetensors"
    hand_made_vectors(fingerprint=fingerprint(model, tokenizer, CHAT_TEMPLATE, {})).save(path)
    logs = {"no log": {}, "JSON Lines": {"jsonl": "a.jsonl"}, "SQLite": {"sqlite": "a.sqlite"}}
    ids = torch.tensor([tokenizer.apply_chat_template(TURNS)["input_ids"]] * BATCH)
    with torch.inference_mode():
        found = Times(
            {
                "bare forward pass": lambda: model(input_ids=ids, use_cache=False, logits_to_keep=1),
                "chat template": lambda: [tokenizer.apply_chat_template(TURNS) for _ in range(BATCH)],
            }
        ).measured()
    for name, audit in logs.items():
        files = {kind: str(folder / file) for kind, file in audit.items()}
        rule = RULE | {"id": "p", "trait": "evil", "layer": 2}
        content = {"version": 1, "vectors": str(path), "policies": [rule], "audit": files}
        with Guard(model, tokenizer, content) as guard:
            found |= Times({f"guard, {name}": lambda g=guard: g.check_many([TEXT] * BATCH)}).measured()
    return {name: round(value / BATCH, 2) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    np.random.seed(0)
    with TemporaryDirectory() as name:
        folder = Path(name)
        found = {
            "unit": "microseconds of processor time, one thread; KiB",
            "products": products(folder),
            "decisions": decisions(folder),
            "pipeline_per_prompt": pipeline(folder),
            "policy_sizes": sizes(folder),
            "machine": asdict(machine("cpu")),
            "versions": versions(),
        }
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
