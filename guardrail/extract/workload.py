"""How long a piece of work will take: what is to be done, and how fast this machine does it.

The speed is measured on a few short replies before the work begins. It gives two times: if each row costs
what it cost in that small batch, and if each pass does, however many rows it has. The truth lies between,
or below if replies end before their last token.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from guardrail.extract.subject import Subject
from guardrail.types import Message

ROWS, FEW, MANY = 4, 2, 10
"""The rows of the probe, and the tokens of its two replies: their difference is the speed of decoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What remains to be done. `judged` counts requests to the judge, `read` texts whose states are read."""

    replies: int = 0
    max_new_tokens: int = 0
    judged: int = 0
    read: int = 0
    batch: int = 1

    def __add__(self, other: Workload) -> Workload:
        return Workload(
            replies=self.replies + other.replies,
            max_new_tokens=max(self.max_new_tokens, other.max_new_tokens),
            judged=self.judged + other.judged,
            read=self.read + other.read,
            batch=max(self.batch, other.batch),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Seconds per row: to read a prompt, and for each further token."""

    prompt_s: float
    token_s: float


def measured(subject: Subject, prompts: Sequence[Sequence[Message]]) -> Speed:
    """The speed on the first prompts. Generates a dozen tokens."""
    _seconds(subject, prompts[:1], 1)  # the first pass of a model is slower than all later ones
    few, many = (_seconds(subject, prompts[:ROWS], tokens) for tokens in (FEW, MANY))
    token = max(0.0, (many - few) / (MANY - FEW))
    rows = len(prompts[:ROWS])
    return Speed(prompt_s=max(0.0, few - FEW * token) / rows, token_s=token / rows)


def _seconds(subject: Subject, prompts: Sequence[Sequence[Message]], tokens: int) -> float:
    begun = time.perf_counter()
    subject.replies(prompts, seeds=range(len(prompts)), max_new_tokens=tokens)
    return time.perf_counter() - begun


def seconds(work: Workload, speed: Speed, judge_s: float | None) -> tuple[float, float]:
    """The least and the most, for replies that use all their tokens.

    judge_s: seconds per request to the judge; None leaves the judge out.
    """
    rest = (work.replies + 2 * work.read) * speed.prompt_s + work.judged * (judge_s or 0.0)
    rows = min(work.replies, ROWS * ceil(work.replies / work.batch))
    least, most = (count * work.max_new_tokens * speed.token_s for count in (rows, work.replies))
    return rest + least, rest + most


def forecast(work: Workload, speed: Speed, judge_s: float | None) -> str:
    """One line for people."""
    parts = [
        f"{work.replies:,} replies of at most {work.max_new_tokens} tokens" if work.replies else "",
        f"{work.judged:,} requests to the judge" if work.judged else "",
        f"{work.read:,} texts to read" if work.read else "",
    ]
    rest = "" if judge_s is not None or not work.judged else ", and the judge's time"
    what = ", ".join(filter(None, parts)) or "nothing left to do"
    least, most = map(_duration, seconds(work, speed, judge_s))
    time = f"at most {most}" if least == most else f"{least} to {most}"
    return f"{what}: {time}{rest}, measured on {ROWS} short replies"


def _duration(value: float) -> str:
    if value < 1:
        return "1 second"
    if value < 90:
        return f"{value:.0f} seconds"
    return f"{value / 60:.0f} minutes" if value < 7200 else f"{value / 3600:.1f} hours"
