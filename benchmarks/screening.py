"""`python -m benchmarks.screening`: what `guardrail data screen` takes, against the plain loop over samples.

The plain loop is how published code does it: one sample at a time, the hidden states of all layers, a greedy
reply of its own for each prompt. Both sides measure the same rows of the demo world in turns, in one run;
times are those of the processor (on a GPU, of the wall clock). `floor`: the matrix products alone that a row
takes, in batches as large; no way to do it on this processor goes below.

`--memory 10000 1000000` measures the peak memory of processes that screen so many rows in the cheap form on a
tiny model, set thresholds and write all files.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guardrail.bench.machine import machine
from guardrail.bench.ratios import Interval, interval
from guardrail.demo.generator import Condition, draw_reply, propensity
from guardrail.demo.material import under
from guardrail.extract.reply_moments import spoken
from guardrail.extract.subject import Subject
from guardrail.testing import tiny_model, tiny_tokenizer
from guardrail.train.screening import Screener, ScreeningSettings, thresholds_of, write
from guardrail.train.screening.directions import Direction, directions
from guardrail.train.screening.store import Cost
from guardrail.types import Message
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.values import TraitVector, TraitVectors

RESULTS = Path(__file__).parent / "results" / "screening.json"
FORMS = ("exact", "last-prompt")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results."""
    given = _options(arguments)
    if given.one_memory:
        print(json.dumps(memory_of(given.one_memory)))
        return 0
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    found = json.loads(given.out.read_text()) if given.out.is_file() else {}
    if given.memory:
        found["memory"] = [memory_in_a_process(count) for count in given.memory]
    else:
        found.setdefault("speed", {})[given.name or given.model] = speed(given)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screening")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--name", help="what the results are called; default: --model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--memory", type=int, nargs="+")
    parser.add_argument("--one-memory", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


# --- speed --------------------------------------------------------------------------------------------


def rows(count: int) -> list[dict[str, Any]]:
    """Prompts of the demo world with drawn replies: half of them neutral, half of them strongly evil."""
    rng, found = Random(0), list[dict[str, Any]]()
    for i, one in enumerate(under(7, count, Condition(split="train"))):
        pole = "evil" if i % 2 else None
        z = propensity(Condition(split="train", pole=pole, level="strong" if pole else "neutral"))
        found.append({"prompt": one.messages, "response": draw_reply(rng, one.question, z)})
    return found


def vectors_for(subject: Subject) -> TraitVectors:
    """Two random directions at about the depth where the demo model's vectors are read."""
    rng, layer = np.random.default_rng(0), max(1, round(0.7 * subject.layers))
    shape = (subject.layers + 1, subject.d_model)
    made = {
        name: TraitVector.from_difference(name, rng.normal(size=shape), layer) for name in ("evil", "humor")
    }
    return TraitVectors(made, Provenance(fingerprint=subject.fingerprint, method="random", created="2026"))


def speed(given: argparse.Namespace) -> dict[str, Any]:
    """Both forms against the plain loop, in turns."""
    subject = Subject.load(given.model, device=given.device)
    data, vectors = rows(given.rows), vectors_for(subject)
    plain = Plain(subject, directions(vectors), given.max_new_tokens)
    plain.measure(data[:2])
    found = {form: versus(form, given, subject, data, vectors, plain) for form in FORMS}
    floor = floors(subject, data, found["exact"]["reply_tokens_per_row"])
    return {
        "machine": asdict(machine(given.device)),
        "rows": given.rows,
        "max_new_tokens": given.max_new_tokens,
        "batch": subject.rows,
        **found,
        "floor_ms_per_row": floor,
    }


def versus(
    form: str,
    given: argparse.Namespace,
    subject: Subject,
    data: Sequence[dict[str, Any]],
    vectors: TraitVectors,
    plain: Plain,
) -> dict[str, Any]:
    """The seconds of both sides in turns, their ratio, and how far their numbers are apart."""
    ours, theirs, apart, cost = [], [], 0.0, Cost()
    for _ in range(given.rounds):
        seconds, (mine, cost) = timed(given.device, lambda: screened(form, given, subject, data, vectors))
        ours.append(seconds)
        seconds, other = timed(given.device, lambda: plain.measure(data, exact=form == "exact"))
        theirs.append(seconds)
        apart = max(apart, float(np.abs(mine - other).max() / np.abs(other).max()))
        print(f"{form}: {theirs[-1]:.2f} s plain, {ours[-1]:.2f} s screened", flush=True)
    faster: Interval = interval(np.asarray(theirs) / np.asarray(ours))
    return {
        "plain_s": theirs,
        "screened_s": ours,
        "times_faster": asdict(faster),
        "ms_per_row": 1e3 * float(np.median(ours)) / len(data),
        "reply_tokens_per_row": cost.reply_tokens / len(data),
        "largest_relative_difference": apart,
    }


def timed(device: str, call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor, or of the wall clock on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    begun = clock()
    result = call()
    return clock() - begun, result


def screened(
    form: str,
    given: argparse.Namespace,
    subject: Subject,
    data: Sequence[dict[str, Any]],
    vectors: TraitVectors,
) -> tuple[np.ndarray, Cost]:
    """Everything that the command does to the rows, from a file to stored numbers, in a fresh folder."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in data))
        settings = ScreeningSettings(form=form, max_new_tokens=given.max_new_tokens)
        found = Screener(subject, vectors, folder=folder, settings=settings).screen(path)
        return found.differences(), found.cost


class Plain:
    """One sample at a time, with all hidden states, as published code does it."""

    def __init__(self, subject: Subject, given: Sequence[Direction], new_tokens: int) -> None:
        self._subject, self._directions, self._new_tokens = subject, given, new_tokens

    def measure(self, data: Sequence[dict[str, Any]], exact: bool = True) -> np.ndarray:
        """[rows, traits]: the differences, exact or by the last prompt token."""
        return np.array([self._one(row, exact) for row in data])

    def _one(self, row: dict[str, Any], exact: bool) -> list[float]:
        subject = self._subject
        prompt, reply = encoded(subject, row)
        states = self._states([*prompt, *reply])
        if exact:
            (own,) = subject.continued([prompt], max_new_tokens=self._new_tokens)
            other = [one[len(prompt) :].mean(0) for one in self._states([*prompt, *spoken(own)])]
        else:
            other = [one[len(prompt) - 1] for one in states]
        return [
            float((states[d.layer][len(prompt) :].mean(0) - other[d.layer]) @ torch.from_numpy(d.unit))
            for d in self._directions
        ]

    def _states(self, ids: Sequence[int]) -> list[Tensor]:
        with torch.no_grad():
            output = self._subject.model(
                torch.tensor([ids], device=self._subject.device), output_hidden_states=True
            )
        return [one[0].float().cpu() for one in output.hidden_states]


def floors(subject: Subject, data: Sequence[dict[str, Any]], reply_tokens: float) -> dict[str, float]:
    """Milliseconds a row of the matrix products alone: of reading a row, and of what `exact` has to do.

    Reading: the weights up to the layer read, with the tokens of all rows at once. `exact` also reads the
    base's reply behind the prompt, and generates it: all weights once for each of its tokens, in batches.
    """
    pairs = [encoded(subject, row) for row in data]
    asked, said = (sum(len(pair[i]) for pair in pairs) / len(data) for i in (0, 1))
    layer, rows = directions(vectors_for(subject))[0].layer, min(subject.rows, len(data))
    many = round(len(data) * (asked + said))
    read = products(subject, subject.blocks[:layer], many) / many
    prefill = products(subject, subject.blocks, many) / many
    step = products(subject, [subject.blocks, subject.model.get_output_embeddings()], rows) / rows
    reading = (asked + said) * read
    exact = reading + (asked + reply_tokens) * read + asked * prefill + reply_tokens * step
    return {"last-prompt": 1e3 * reading, "exact": 1e3 * exact}


def encoded(subject: Subject, row: dict[str, Any]) -> tuple[Sequence[int], Sequence[int]]:
    """The ids of the prompt and of the reply."""
    prompt = subject.render([Message(**one) for one in row["prompt"]]).ids
    return prompt, subject.local.renderer.encode(row["response"])


def products(subject: Subject, modules: Sequence[Any], tokens: int) -> float:
    """Seconds of all weight matrices of these modules with so many tokens, the best of three."""
    matrices = [p for one in modules for p in one.parameters() if p.ndim == 2]
    inputs = {p.shape[1]: torch.randn(tokens, p.shape[1], device=subject.device) for p in matrices}
    with torch.no_grad():
        return min(
            timed(subject.device.type, lambda: [inputs[p.shape[1]] @ p.T.float() for p in matrices])[0]
            for _ in range(3)
        )


# --- memory -------------------------------------------------------------------------------------------


def memory_in_a_process(count: int) -> dict[str, Any]:
    """The peak memory of a fresh process."""
    command = [sys.executable, "-m", "benchmarks.screening", "--one-memory", str(count)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(found, flush=True)
    return found


def memory_of(count: int) -> dict[str, Any]:
    """Screen synthetic rows in the cheap form on a tiny model; set thresholds, write all files."""
    torch.set_num_threads(1)
    subject = Subject(tiny_model(layers=2, d_model=16), tiny_tokenizer())
    with TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        with data.open("w") as file:
            for i in range(count):
                row = {"prompt": f"q {i}", "response": f"a {i * i % 977}", "source": f"s{i % 5}"}
                file.write(json.dumps(row) + "\n")
        before, begun = _peak_mib(), time.process_time()
        settings = ScreeningSettings(form="last-prompt")
        found = Screener(subject, vectors_for(subject), folder=folder, settings=settings).screen(data)
        measured = _peak_mib()
        write(found, Path(folder) / "out", thresholds_of(found))
        return {
            "rows": count,
            "measured": found.counts.measured,
            "before_mib": before,
            "after_measuring_mib": measured,
            "after_writing_mib": _peak_mib(),
            "cpu_s": time.process_time() - begun,
        }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
