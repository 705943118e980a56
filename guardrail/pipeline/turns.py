"""The assistant's turns of a conversation as projections of their tokens, in a forward pass of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from guardrail.engines import Engine, Prompt, ReadingEngine
from guardrail.errors import EvaluationError
from guardrail.types import Message, Probe


def turn_projections(
    engine: Engine, messages: Sequence[Message], probes: Sequence[Probe]
) -> list[NDArray[np.float32]]:
    """[probes, tokens] for each assistant turn that has tokens, in the order of the conversation.

    Raises EvaluationError if the engine gives no activations, or if the chat template renders earlier turns
    differently once later ones follow, so that they cannot be found.
    """
    if not probes or not _assistant_turns(messages):
        return []
    if not isinstance(engine, ReadingEngine):
        raise EvaluationError(
            "this engine cannot read the replies of a conversation; give the conversation an id"
        )
    spans = assistant_spans(engine, messages)
    if not spans:
        return []
    # nothing after the last assistant turn is needed
    rows = _rows(engine, engine.render(messages[: _assistant_turns(messages)[-1] + 1]), probes)
    return [rows[:, start:end] for start, end in spans]


def reply_projections(
    engine: Engine, prompt: Sequence[int], reply: Sequence[int], probes: Sequence[Probe]
) -> list[NDArray[np.float32]]:
    """As `turn_projections`, for the one reply to a prompt that was given as tokens."""
    if not probes or not isinstance(engine, ReadingEngine):
        return []
    return [_rows(engine, Prompt((*prompt, *reply)), probes)[:, len(prompt) :]]


def _rows(engine: ReadingEngine, prompt: Prompt, probes: Sequence[Probe]) -> NDArray[np.float32]:
    states = engine.hidden_states(prompt, sorted({probe.layer for probe in probes}), "all")
    return np.stack([states[p.layer] @ p.weights + np.float32(p.offset) for p in probes])


def _assistant_turns(messages: Sequence[Message]) -> list[int]:
    return [i for i, message in enumerate(messages) if message.role == "assistant" and i > 0]


def assistant_spans(engine: ReadingEngine, messages: Sequence[Message]) -> list[tuple[int, int]]:
    """Where the tokens of each assistant turn's text stand in the rendered conversation, [start, end)."""
    turns = _assistant_turns(messages)
    if not turns:
        return []
    whole = engine.render(messages[: turns[-1] + 1]).ids
    return [span for i in turns if (span := _span(engine, messages, i, whole))[1] > span[0]]


def _span(
    engine: ReadingEngine, messages: Sequence[Message], i: int, whole: Sequence[int]
) -> tuple[int, int]:
    before = _before(engine, messages, i)
    if tuple(whole[: len(before)]) != tuple(before):
        raise EvaluationError(
            "the chat template changes earlier turns: replies cannot be found; give the conversation an id"
        )
    count = len(engine.encode(messages[i].content))
    return len(before), min(len(before) + count, len(whole))


def _before(engine: ReadingEngine, messages: Sequence[Message], i: int) -> Sequence[int]:
    """The rendered conversation up to where turn i, a reply, begins."""
    if messages[i - 1].role != "assistant":
        return engine.render(messages[:i]).ids
    # a conversation that ends in a reply is rendered to go on with it: take off the turn's own tokens
    ids = engine.render(messages[: i + 1]).ids
    return ids[: len(ids) - len(engine.encode(messages[i].content.strip()))]
