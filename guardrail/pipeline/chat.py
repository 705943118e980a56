"""Conversations in, replies or decisions out: `chat` and `check` for batches."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.pipeline.driver import Driver
from guardrail.pipeline.exchange import Exchange
from guardrail.types import Check, Reply, Sampling

BATCH = 32
"""How many conversations are evaluated at once, under one time limit."""


def chat(driver: Driver, batch: Sequence[Exchange], sampling: Sampling) -> list[Reply]:
    """A reply to every exchange. Exchanges that an action has changed go into another round."""
    replies: dict[str, Reply] = {}
    while todo := [exchange for exchange in batch if exchange.id not in replies][:BATCH]:
        with driver.recorder.closing(todo):
            replies |= _settled(driver, todo, sampling)
    return [replies[exchange.id] for exchange in batch]


def _settled(driver: Driver, todo: Sequence[Exchange], sampling: Sampling) -> dict[str, Reply]:
    admission = driver.admit(todo, sampling.max_new_tokens)
    round = driver.decide(admission, driver.replying(sampling))
    names = [exchange.id for exchange in admission.admitted]
    completions = dict(zip(names, round.result() or [None] * len(names), strict=True))
    found: dict[str, Reply] = {}
    for exchange in todo:
        if (answer := driver.answer(exchange, completions.get(exchange.id))) is not None:
            found[exchange.id] = driver.finish(exchange, answer)
    return found


def check(driver: Driver, batch: Sequence[Exchange]) -> list[Check]:
    """A decision on every exchange; nothing is generated."""
    parts = (batch[i : i + BATCH] for i in range(0, len(batch), BATCH))
    return [decided for part in parts for decided in _checked(driver, part)]


def _checked(driver: Driver, batch: Sequence[Exchange]) -> list[Check]:
    with driver.recorder.closing(batch):
        driver.decide(driver.admit(batch, room=1), driver.engine.check)
        return [driver.recorder.checked(exchange) for exchange in batch]
