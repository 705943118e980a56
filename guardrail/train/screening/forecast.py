"""How much work a screening still is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from guardrail.extract.workload import Workload
from guardrail.train.screening.files import open_data
from guardrail.train.screening.rows import BadRow
from guardrail.train.screening.screening import Screener
from guardrail.types import Message

PROMPTS = 4
"""How many prompts are taken to measure the speed."""


def remaining(
    screener: Screener, paths: Sequence[str | Path]
) -> tuple[Workload, Sequence[Sequence[Message]]]:
    """What is to be read, generated and judged, at most, and a few of the prompts.

    A row with several replies counts once. Replies that are known from other data are not taken off.
    """
    rows, prompts = 0, list[Sequence[Message]]()
    for path in paths:
        data = open_data(path)
        total = data.rows()
        left = total - screener.store(data).looked_at
        rows += min(left, screener.settings.subset or left)
        prompts = prompts or _prompts(screener, path)
    exact = screener.settings.form == "exact" and bool(prompts)
    judged = rows * len(screener.judge.rubrics) if screener.judge else 0
    return (
        Workload(
            replies=rows if exact else 0,
            max_new_tokens=screener.settings.max_new_tokens if exact else 0,
            judged=judged,
            read=rows if prompts else 0,
            batch=screener.subject.rows,
        ),
        prompts,
    )


def _prompts(screener: Screener, path: str | Path) -> list[Sequence[Message]]:
    reader, found = screener.reader(), list[Sequence[Message]]()
    for value in (one for chunk in islice(open_data(path).chunks(), 1) for one in chunk.values):
        try:
            found += [one.exchange.prompt for one in reader.encoded(value)]
        except BadRow:
            continue
        if len(found) >= PROMPTS:
            break
    return found[:PROMPTS]
