"""`python -m benchmarks.extraction`: extraction against the straightforward loop, alternating, same texts.

Rollouts: `Subject.replies` on a batch against `model.generate` on one prompt at a time. Activations and
vectors: `reply_moments` against one text at a time with `output_hidden_states=True`, three means at every
layer. What both find has to be the same: the smallest cosine over positions and layers is in the note.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from guardrail.bench import results
from guardrail.bench.clocks import Stopwatch, cpu_clock, wall_clock
from guardrail.bench.goals import Goal
from guardrail.bench.pairs import measure, total
from guardrail.bench.results import Row, measured
from guardrail.bench.tables import cells
from guardrail.demo import material
from guardrail.extract.filter import Pair
from guardrail.extract.judgements import Judged, judge_rollouts
from guardrail.extract.moments import POSITIONS
from guardrail.extract.prompts import RolloutPrompt
from guardrail.extract.reply_moments import reply_moments
from guardrail.extract.rollouts import Rollouts, RolloutSettings, roll_out
from guardrail.extract.stability import cosines
from guardrail.extract.subject import Subject
from guardrail.plugins.protocols import JudgeRequest
from guardrail.types import Array, Message

QUESTIONS, NEW_TOKENS, ROUNDS, WARM_UP = 48, 64, 12, 1
LEAST_COSINE = 0.9999
CLOCKS: dict[str, Callable[[], Stopwatch]] = {"wall": wall_clock, "cpu": cpu_clock}


class Indifferent:
    """Keeps everything: what is timed is not the judge."""

    name = "indifferent"

    def scores(self, requests: Sequence[JudgeRequest]) -> Sequence[float | None]:
        return [50.0] * len(requests)


@dataclass(frozen=True, slots=True)
class Texts:
    """Prompts of the demo world with their replies, as an extraction sees them."""

    subject: Subject
    rollouts: Rollouts
    judged: Judged
    pairs: Sequence[Pair]


def texts(subject: Subject, folder: Path, questions: int) -> Texts:
    """As many prompts of either side, one reply each."""
    drawn = material.benign(0, 2 * questions, "train")
    prompts = [
        RolloutPrompt(
            kind="positive" if i % 2 else "negative",
            messages=tuple(Message(**message) for message in one.messages),
            instruction=0,
            question=i // 2,
        )
        for i, one in enumerate(drawn)
    ]
    settings = RolloutSettings(samples=1, max_new_tokens=NEW_TOKENS, batch=64)
    rollouts = roll_out(subject, "benchmark", prompts, settings, folder)
    judged = judge_rollouts(rollouts, Indifferent(), {"coherence": ""}, folder)
    pairs = [Pair(rollouts.row(2 * i + 1, 0), rollouts.row(2 * i, 0), i) for i in range(questions)]
    return Texts(subject, rollouts, judged, pairs)


def ours(given: Texts, folder: Path) -> list[Array]:
    """The three differences [L + 1, d_model], from nothing."""
    with TemporaryDirectory(dir=folder) as fresh:
        moments = reply_moments(given.subject, given.judged, given.pairs, Path(fresh))
    return [moments.difference(position) for position in POSITIONS]


@torch.inference_mode()
def straightforward(given: Texts) -> list[Array]:
    """The same, one text at a time."""
    sides: list[list[Any]] = [[], []]
    for pair in given.pairs:
        for side, row in enumerate((pair.positive, pair.negative)):
            sides[side].append(_means(given, row))
    positive, negative = (torch.stack(states).float().mean(0) for states in sides)
    return list((positive - negative).numpy())


def _means(given: Texts, row: int) -> torch.Tensor:
    """[positions, L + 1, d_model]."""
    prompt = given.subject.render(given.rollouts.prompts[given.rollouts.place(row)[0]].messages).ids
    reply = given.rollouts.reply(row)
    ids = torch.tensor([[*prompt, *(reply.ids[:-1] if reply.ended else reply.ids)]])
    states = torch.stack(given.subject.model(ids, output_hidden_states=True).hidden_states)[:, 0]
    n = len(prompt)
    return torch.stack([states[:, n:].mean(1), states[:, n - 1], states[:, :n].mean(1)])


def least_cosine(first: Sequence[Array], second: Sequence[Array]) -> float:
    """Over positions and layers 1 to L - 1: transformers gives the last one after the final norm."""
    return min(float(cosines(a, b)[1:-1].min()) for a, b in zip(first, second, strict=True))


@torch.inference_mode()
def one_at_a_time(given: Texts) -> None:
    """A sampled reply to each prompt."""
    for prompt in given.rollouts.prompts:
        ids = torch.tensor([given.subject.render(prompt.messages).ids])
        given.subject.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=NEW_TOKENS,
        )


def batched(given: Texts) -> None:
    """The same with us."""
    prompts = [prompt.messages for prompt in given.rollouts.prompts]
    given.subject.replies(prompts, seeds=range(len(prompts)), max_new_tokens=NEW_TOKENS)


def row(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    limit: float,
    clock: Stopwatch,
    rounds: int,
    note: str,
) -> Row:
    """`guarded` is ours, `bare` the straightforward loop; the ratio is that of their times."""
    timings = measure(ours, theirs, rounds, WARM_UP, clock).timings(total)
    found = measured(name, timings, Goal(value=limit))
    assert found.ratio is not None
    return replace(found, note=f"{1 / found.ratio.median:.1f} times as fast; {note}")


def run(folder: Path, clock: Stopwatch, questions: int, rounds: int) -> list[Row]:
    """Both comparisons on the built-in model."""
    subject = Subject.load("demo", device="cpu")
    given = texts(subject, folder, questions)
    cosine = least_cosine(ours(given, folder), straightforward(given))
    if cosine <= LEAST_COSINE:
        raise SystemExit(f"the results differ: cosine {cosine}")
    tokens = int(np.mean([len(reply.ids) for _, reply in given.rollouts.replies()]))
    size = f"{2 * questions} texts, replies of {tokens} tokens on average"
    return [
        row(
            "demo: activations and vectors",
            lambda: ours(given, folder),
            lambda: straightforward(given),
            1 / 5,
            clock,
            rounds,
            f"{size}; least cosine {cosine:.6f}",
        ),
        row(
            "demo: rollouts", lambda: batched(given), lambda: one_at_a_time(given), 1 / 3, clock, rounds, size
        ),
    ]


def main() -> int:
    """Exit code 0, or 1 if a goal is missed or undecided."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extraction", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/extraction.json"))
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="half as many as texts")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        rows = run(Path(folder), CLOCKS[arguments.clock](), arguments.questions, arguments.rounds)
    for one in rows:
        print(*cells(one), one.note, sep="  ")
    results.write(results.report(rows, "cpu", arguments.clock), arguments.out)
    return int(any(one.verdict != "pass" for one in rows))


if __name__ == "__main__":
    raise SystemExit(main())
