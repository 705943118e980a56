"""The assistant's turns of a conversation as projections of their tokens, in a forward pass of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardrail.engines import Site
from guardrail.errors import EvaluationError
from guardrail.types import Message, Probe


def turn_projections(
    engine: Any, messages: Sequence[Message], probes: Sequence[Probe]
) -> list[NDArray[np.float32]]:
    """[probes, tokens] for each assistant turn that has tokens, in the order of the conversation.

    Raises EvaluationError where the engine gives no activations, or where the chat template renders earlier
    turns otherwise once later ones are there, so that they cannot be found.
    """
    spans = assistant_spans(engine, messages)
    if not spans or not probes:
        return []
    if not hasattr(engine, "activations"):
        raise EvaluationError(
            "this engine cannot read the replies of a conversation; give the conversation an id"
        )
    # nothing after the last assistant turn is needed
    last = max(i for i, message in enumerate(messages) if message.role == "assistant")
    ids, mask = engine.batch([engine.render(messages[: last + 1])])
    sites = [Site(layer) for layer in sorted({probe.layer for probe in probes})]
    states = engine.activations.read(ids, mask, sites, "all")
    layers = {site.layer: states[site][0].float().cpu().numpy() for site in sites}
    rows = np.stack([layers[p.layer] @ p.weights + np.float32(p.offset) for p in probes])
    return [rows[:, start:end] for start, end in spans]


def assistant_spans(engine: Any, messages: Sequence[Message]) -> list[tuple[int, int]]:
    """Where the tokens of each assistant turn's text stand in the rendered conversation, [start, end)."""
    turns = [i for i, message in enumerate(messages) if message.role == "assistant" and i > 0]
    if not turns:
        return []
    whole = engine.render(messages[: turns[-1] + 1]).ids
    return [span for i in turns if (span := _span(engine, messages, i, whole))[1] > span[0]]


def _span(engine: Any, messages: Sequence[Message], i: int, whole: Sequence[int]) -> tuple[int, int]:
    before = engine.render(messages[:i]).ids
    if tuple(whole[: len(before)]) != tuple(before):
        raise EvaluationError(
            "the chat template changes earlier turns: replies cannot be found; give the conversation an id"
        )
    count = len(engine.renderer.encode(messages[i].content))
    return len(before), min(len(before) + count, len(whole))
