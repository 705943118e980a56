"""How much work a screening still is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guardrail.extract.workload import Workload
from guardrail.files.json_lines import refuse
from guardrail.train.screening.files import open_data
from guardrail.train.screening.screening import Screener
from guardrail.train.screening.survey import survey
from guardrail.types import Message

PROMPTS = 4
"""How many prompts are taken to measure the speed."""


def remaining(
    screener: Screener, paths: Sequence[str | Path]
) -> tuple[Workload, Sequence[Sequence[Message]]]:
    """What is to be read, generated and judged, at most, and a few of the prompts.

    A row with several replies counts once, a row that will be set aside not at all. Replies that are known
    from other data are not taken off. With `strict`, raises ConfigError with every row that cannot be
    screened.
    """
    rows, prompts = 0, list[Sequence[Message]]()
    for path in paths:
        left, first = _usable(screener, path)
        rows += min(left, screener.settings.subset or left)
        prompts = prompts or first
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


def _usable(screener: Screener, path: str | Path) -> tuple[int, list[Sequence[Message]]]:
    """How many rows are to be measured, and the first of their prompts."""
    data, problems = open_data(path), list[str]()
    store, count, prompts = screener.store(data), 0, list[Sequence[Message]]()
    strict, enough = screener.settings.strict, screener.settings.subset
    if store.complete and not strict:
        return 0, prompts
    done = store.done
    for looked in survey(data, screener.reader()):
        left = [one for one in looked.good if one.number > done]
        count += len(left)
        prompts += [one.exchange.prompt for row in left[:PROMPTS] for one in row.encoded]
        del prompts[PROMPTS:]
        problems += [f"{path}:{row.number}: {row.problem}" for row in looked.bad]
        if enough and count >= enough and not strict:
            break
    if strict:
        refuse(problems)
    return count, prompts
