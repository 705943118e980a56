"""`python -m benchmarks.real.cost`: what the guard adds on real models, in processor time.

Guarded and bare calls alternate in one process, each on a copy of the model of its own; several couples of
copies are measured, and every other one changes its roles. Allowed: messages to the first token. Blocked:
messages to the refusal, against template and prefill. `last`: one probe at the last token. `combined`: the
sum of one at the user's text, in the middle of the model, and of that one. Goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from benchmarks.real import results
from benchmarks.real.models import QWEN_05B, SMOLLM2, RealModel, fetch
from benchmarks.runner import COUPLES, swapped, timed
from guardrail import Guard
from guardrail.bench.cases import Case, endless
from guardrail.bench.clocks import cpu_clock
from guardrail.bench.goals import Goal
from guardrail.bench.pairs import total
from guardrail.bench.plans import ALWAYS, NEVER
from guardrail.bench.ratios import Timings
from guardrail.bench.results import Row, measured
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.gguf import alone
from guardrail.engines.transformers.pretrained import load_pretrained
from guardrail.engines.transformers.rendering import Renderer
from guardrail.types import ProbeSite, Reply
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.values import TraitVector, TraitVectors

NARROW = 64
"""The width of the narrow models, and of their MLPs."""
LENGTHS = (64, 512)
"""Tokens of a prompt."""
PAIRS = 32
GOAL = Goal(value=1.005)
READOUTS = ("last", "combined")
VERDICTS = {"allow": NEVER, "block": ALWAYS}
NAMES = [f"{tokens} tokens, {r}, {v}" for tokens, r, v in product(LENGTHS, READOUTS, VERDICTS)]
SIDES = (attrgetter("guarded"), attrgetter("bare"))
GOALS = {f"512 tokens, {readout}, allow": GOAL for readout in READOUTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Couple:
    """A model to guard and a bare copy of it."""

    name: str
    model: Any
    bare: Any
    tokenizer: Any
    goals: Mapping[str, Goal]

    @classmethod
    def load(cls, model: RealModel, dtype: str) -> Couple:
        """Two copies. Their replies never end by themselves."""
        arguments = {"dtype": getattr(torch, dtype)}
        (guarded, tokenizer), (bare, _) = (load_pretrained(str(fetch(model)), arguments) for _ in range(2))
        copies = {"model": endless(guarded), "bare": endless(bare)}
        return cls(name=f"{model.name}, {dtype}", **copies, tokenizer=tokenizer, goals=GOALS)

    @classmethod
    def narrow(cls, model: RealModel) -> Couple:
        """Random models with as many layers, and the same tokens and template, but few numbers in a state.

        What the guard does is nearly the same, and the pass is so cheap that the added time stands out.
        """
        with alone(fetch(model)) as place:
            config, tokenizer = (of.from_pretrained(**place) for of in (AutoConfig, AutoTokenizer))
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": NARROW // 2}
        for name, value in {**heads, "hidden_size": NARROW, "intermediate_size": NARROW}.items():
            setattr(config, name, value)
        torch.manual_seed(0)
        guarded = AutoModelForCausalLM.from_config(config).eval()
        copies = {"model": endless(guarded), "bare": endless(copy.deepcopy(guarded))}
        return cls(name=f"{model.name}, {NARROW} wide", **copies, tokenizer=tokenizer, goals={})

    def rendered(self, messages: list[dict[str, str]]) -> Mapping[str, torch.Tensor]:
        """The prompt's ids and mask."""
        return self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )

    def asked(self, tokens: int) -> list[dict[str, str]]:
        """A user's message that makes a prompt of so many tokens."""
        text = "Please"
        while self.rendered(_user(text))["input_ids"].shape[1] < tokens:
            text += " tell"
        return _user(text)

    def first_token(self, messages: list[dict[str, str]]) -> Callable[[], object]:
        """Template, `generate`, decode."""

        def reply() -> str:
            inputs = self.rendered(messages)
            output = self.bare.generate(**inputs, max_new_tokens=1, do_sample=False)
            return self.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

        return reply

    def prefill(self, messages: list[dict[str, str]]) -> Callable[[], object]:
        """Template and forward pass."""

        def forward() -> object:
            with torch.no_grad():
                return self.bare(**self.rendered(messages), use_cache=True, logits_to_keep=1)

        return forward


COUPLES_OF: Mapping[str, Callable[[], Couple]] = {
    f"{SMOLLM2.name}, {NARROW} wide": partial(Couple.narrow, SMOLLM2),
    f"{SMOLLM2.name}, float32": partial(Couple.load, SMOLLM2, "float32"),
    f"{QWEN_05B.name}, bfloat16": partial(Couple.load, QWEN_05B, "bfloat16"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {', '.join(COUPLES_OF)}")
    names = parser.parse_args().names or COUPLES_OF
    torch.set_num_threads(1)
    journal = Recordings(results.RUNS / "cost-pairs.jsonl")
    for name, number in product(names, range(COUPLES)):
        _measure_couple(journal, name, number)
        results.save("cost", {"clock": "cpu", "rows": [asdict(row) for row in journal.rows()]})
    return 0


def _measure_couple(journal: Recordings, name: str, number: int) -> None:
    """The cases of a couple that are missing; even couples change their roles."""
    missing = [case for case in NAMES if (name, case, number) not in journal.known]
    if not missing:
        return
    loaded = COUPLES_OF[name]()
    couple = loaded if number % 2 else swapped(loaded)
    for case in cases(couple, missing):
        print(f"{name}: {case.name} ({number + 1} of {COUPLES})", flush=True)
        recorded = timed(couple, case, -(-PAIRS // COUPLES), cpu_clock())
        journal.add((name, case.name, number), recorded.timings(total))


class Recordings:
    """The times of every case of every couple, in a file: an interrupted run loses at most one case."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.known = dict(_recorded(**json.loads(line)) for line in lines)

    def add(self, of: tuple[str, str, int], times: Timings) -> None:
        """Keep what was measured."""
        self.known[of] = times
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"of": of, "times": asdict(times)}) + "\n")

    def rows(self) -> Iterator[Row]:
        """A row for each case, with the pairs of all its couples."""
        for name in dict.fromkeys(of[:2] for of in self.known):
            parts = [times for of, times in self.known.items() if of[:2] == name]
            guarded, bare = ([ms for part in parts for ms in side(part)] for side in SIDES)
            goal = GOALS.get(name[1]) if str(NARROW) not in name[0] else None
            yield measured(": ".join(name), Timings(tuple(guarded), tuple(bare)), goal)


def _recorded(of: Sequence[Any], times: Mapping[str, Sequence[float]]) -> tuple[Any, Timings]:
    return tuple(of), Timings(**{side: tuple(row) for side, row in times.items()})


def cases(couple: Couple, wanted: Collection[str] | None = None) -> Iterator[Case]:
    """Every length, read-out and verdict, or those wanted. A case holds until the next one is asked for."""
    for tokens, readout, (verdict, threshold) in product(LENGTHS, READOUTS, VERDICTS.items()):
        name = f"{tokens} tokens, {readout}, {verdict}"
        if wanted is not None and name not in wanted:
            continue
        messages = couple.asked(tokens)
        with TemporaryDirectory() as folder, guarded(couple, readout, threshold, Path(folder)) as guard:
            yield Case(
                name=name,
                guarded=partial(guard.chat, messages, max_new_tokens=1, temperature=0),
                bare=couple.first_token(messages) if verdict == "allow" else couple.prefill(messages),
                holds=partial(as_expected, verdict),
            )


def as_expected(verdict: str, guarded: Reply, bare: object) -> bool:
    """Whether the guard decided as it should, and changed no word of what it allowed."""
    decided = (guarded.decision.status, guarded.decision.action) == ("evaluated", verdict)
    return decided and (verdict == "block" or guarded.text == bare)


def guarded(couple: Couple, readout: str, threshold: float, folder: Path) -> Guard:
    """A guard with one policy, on a random vector."""
    path = folder / "vectors.safetensors"
    vector_file(couple, readout).save(path)
    policy = {"id": "p", "trait": "harm", "layer": "auto", "threshold": {"raw": threshold}, "action": "block"}
    return Guard(couple.model, couple.tokenizer, {"version": 1, "vectors": str(path), "policies": [policy]})


def vector_file(couple: Couple, readout: str) -> TraitVectors:
    """Random directions; what they are does not matter to the time that they take."""
    of = fingerprint(couple.model, couple.tokenizer, Renderer(couple.tokenizer).template, {})
    rows = np.random.default_rng(0).normal(size=(of.layers + 1, of.d_model)).astype(np.float32)
    middle, late = of.layers // 2, of.layers - 2
    sites = (
        ProbeSite(layer=middle, position="user_mean", weights=rows[middle], normalised=True),
        ProbeSite(layer=late, position="last", weights=rows[late], normalised=True),
    )
    vector = TraitVector(
        "harm",
        rows,
        rows,
        np.zeros(len(rows), np.float32),
        late,
        sites=sites if readout == "combined" else (),
    )
    provenance = Provenance(fingerprint=of, method="random", created="", position="none")
    return TraitVectors({"harm": vector}, provenance)


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


if __name__ == "__main__":
    sys.exit(main())
