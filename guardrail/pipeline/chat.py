"""Conversations in, replies or decisions out: `chat` and `check` for batches."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.pipeline.driver import Driver
from guardrail.pipeline.exchange import Exchange
from guardrail.plugins.protocols import Answer
from guardrail.types import Check, Reply, Sampling

BATCH = 32
"""How many conversations are evaluated at once; their time limits add up."""


def chat(driver: Driver, batch: Sequence[Exchange], sampling: Sampling) -> list[Reply]:
    """A reply to every exchange. Exchanges that an action has changed go into another round.

    None counts as answered before all are, because an error takes every reply from the caller.
    """
    answers: dict[str, Answer] = {}
    with driver.recorder.closing(batch):
        admissible(driver, batch, sampling.max_new_tokens)
        while todo := [exchange for exchange in batch if exchange.id not in answers][:BATCH]:
            answers |= _settled(driver, todo, sampling)
        return [driver.finish(exchange, answers[exchange.id]) for exchange in batch]


def admissible(driver: Driver, batch: Sequence[Exchange], room: int) -> None:
    """Raises PromptError for a prompt that would stop a later part, before the first part is answered."""
    if len(batch) > BATCH:
        driver.admit(batch, room)


def _settled(driver: Driver, todo: Sequence[Exchange], sampling: Sampling) -> dict[str, Answer]:
    admission = driver.admit(todo, sampling.max_new_tokens)
    round = driver.decide(admission, driver.replying(sampling))
    names = [exchange.id for exchange in admission.admitted]
    completions = dict(zip(names, round.result() or [None] * len(names), strict=True))
    batch = admission.batch
    answers = {exchange.id: driver.answer(exchange, completions.get(exchange.id)) for exchange in batch}
    return {name: answer for name, answer in answers.items() if answer is not None}


def check(driver: Driver, batch: Sequence[Exchange]) -> list[Check]:
    """A decision on every exchange; nothing is generated."""
    with driver.recorder.closing(batch):
        admissible(driver, batch, room=1)
        while todo := [exchange for exchange in batch if not exchange.decisions][:BATCH]:
            driver.decide(driver.admit(todo, room=1), driver.engine.check)
        return [driver.recorder.checked(exchange) for exchange in batch]
