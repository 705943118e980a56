"""Generates replies to every prompt, several samples each: individually seeded, batched by length, resumable.

Samples of a prompt are adjacent and prompts are ordered by length, so the rows of a batch have similar
lengths. The recipe alone determines the order, and with it every batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardrail.engines import Continuation
from guardrail.extract.journal import Journal, Recipe, Report, silent
from guardrail.extract.prompts import RolloutPrompt, prompts_sha256

if TYPE_CHECKING:
    from guardrail.extract.subject import Subject

FILE = "rollouts.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSettings:
    """How to generate replies. `batch` rows are generated at a time; a resumed run repeats at most one batch.

    10 samples, temperature 1 and top_p 1 follow the paper (arXiv 2507.21509, 2.2 and its code).
    """

    samples: int = 10
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    batch: int = 64


class Rollouts:
    """The replies to some prompts, on disk. Rows are ordered by prompt length."""

    def __init__(
        self, prompts: Sequence[RolloutPrompt], order: Sequence[int], samples: int, journal: Journal
    ) -> None:
        self.prompts, self.samples, self.journal = prompts, samples, journal
        self._order = order
        self._rank = {prompt: rank for rank, prompt in enumerate(order)}

    def __len__(self) -> int:
        return len(self.prompts) * self.samples

    def place(self, row: int) -> tuple[int, int]:
        """(prompt, sample) of a row."""
        return self._order[row // self.samples], row % self.samples

    def row(self, prompt: int, sample: int) -> int:
        """The row of a sample."""
        return self._rank[prompt] * self.samples + sample

    def reply(self, row: int) -> Continuation:
        """A reply, read from disk."""
        return _reply(self.journal[row])

    def replies(self) -> Iterator[tuple[RolloutPrompt, Continuation]]:
        """Every prompt with each of its replies, in the order of the rows."""
        return ((self.prompts[self.place(row)[0]], self.reply(row)) for row in range(len(self)))


def roll_out(
    subject: Subject,
    pool: str,
    prompts: Sequence[RolloutPrompt],
    settings: RolloutSettings,
    folder: Path,
    report: Report = silent,
) -> Rollouts:
    """Generate the replies that `folder` lacks. `pool` names the prompts, in seeds and in reports.

    Raises ExtractionError if the folder was begun with another recipe.
    """
    lengths = [len(subject.render(prompt.messages).ids) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda i: lengths[i])
    journal = Journal(
        folder / FILE,
        rollout_recipe(subject, pool, prompts, settings),
        len(prompts) * settings.samples,
        settings.batch,
    )
    rollouts = Rollouts(prompts, order, settings.samples, journal)
    journal.complete(
        f"{pool}: rollouts",
        lambda rows: _generated(subject, pool, rollouts, settings, rows),
        report,
        together=subject.runner.width,
    )
    return rollouts


def rollout_recipe(
    subject: Subject, pool: str, prompts: Sequence[RolloutPrompt], settings: RolloutSettings
) -> Recipe:
    """Everything that the replies depend on; the prompts' hash covers questions and system prompts."""
    model = {f"model {name}": value for name, value in asdict(subject.fingerprint).items()}
    return {"pool": pool, **model, **known_recipe(pool, prompts, settings)}


def known_recipe(pool: str, prompts: Sequence[RolloutPrompt], settings: RolloutSettings) -> Recipe:
    """The part of the recipe that is known before a model is loaded."""
    return {"pool": pool, "prompts": prompts_sha256(prompts), **asdict(settings)}


def row_seed(seed: int, pool: str, prompt: RolloutPrompt, sample: int) -> int:
    """The seed of one sample, independent of all other rollouts."""
    text = f"{seed}/{pool}/{prompt.key}/{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _generated(
    subject: Subject, pool: str, rollouts: Rollouts, settings: RolloutSettings, rows: Sequence[int]
) -> list[dict[str, Any]]:
    places = [rollouts.place(row) for row in rows]
    prompts = [rollouts.prompts[prompt] for prompt, _ in places]
    seeds = [
        row_seed(settings.seed, pool, prompt, sample)
        for prompt, (_, sample) in zip(prompts, places, strict=True)
    ]
    replies = subject.replies(
        [prompt.messages for prompt in prompts],
        seeds=seeds,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )
    return [
        _row(prompt, sample, seed, reply)
        for prompt, (_, sample), seed, reply in zip(prompts, places, seeds, replies, strict=True)
    ]


def _row(prompt: RolloutPrompt, sample: int, seed: int, reply: Continuation) -> dict[str, Any]:
    return {
        "kind": prompt.kind,
        "instruction": prompt.instruction,
        "question": prompt.question,
        "sample": sample,
        "seed": seed,
        "messages": [message.as_dict() for message in prompt.messages],
        "text": reply.text,
        "ids": reply.ids,
        "ended": reply.ended,
    }


def _reply(row: dict[str, Any]) -> Continuation:
    return Continuation(row["text"], tuple(row["ids"]), row["ended"])
