"""Models that read every row of a batch in another way as soon as one of them is long.

`longrope` (Phi-3, Phi-4-mini) rotates with one set of factors up to a number of tokens, and with another
beyond it; the longest row of a pass decides for all of them. Prompts that it would read differently are
therefore never in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guardrail.engines.transformers.batches import bucketed
from guardrail.engines.transformers.blocks import text_config
from guardrail.errors import UnsupportedGeneration


def switches(model: Any) -> tuple[int, ...]:
    """The most tokens that are read as in a short text; empty for models that read all alike."""
    given: Mapping[str, Any] = getattr(text_config(model), "rope_parameters", None) or {}
    # one table, or one for each kind of layer
    tables = [given, *(table for table in given.values() if isinstance(table, Mapping))]
    long = [table for table in tables if table.get("rope_type") == "longrope"]
    return tuple(sorted({int(table["original_max_position_embeddings"]) for table in long}))


def apart(lengths: Sequence[int], room: int, switches: Sequence[int]) -> list[list[int]]:
    """Places of rows that may be in one batch. `room`: how many tokens may be added to each.

    A row that may become long is alone, because nobody knows when it does.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, length in enumerate(lengths):
        before, after = _passed(length, switches), _passed(length + room, switches)
        groups.setdefault((before,) if before == after else (before, after, i), []).append(i)
    return list(groups.values())


def _passed(length: int, switches: Sequence[int]) -> int:
    return sum(length > switch for switch in switches)


def batched(
    lengths: Sequence[int], rows: int, tokens: float, switches: Sequence[int], room: int = 0
) -> Iterator[list[int]]:
    """As `bucketed`, without batches of rows that must be apart."""
    for group in apart(lengths, room, switches):
        for batch in bucketed([lengths[i] for i in group], rows, tokens):
            yield [group[i] for i in batch]


def check_alike(lengths: Sequence[int], switches: Sequence[int]) -> None:
    """Raises UnsupportedGeneration for prompts that are read in another way beside one another."""
    if len(apart(lengths, 0, switches)) > 1:
        raise UnsupportedGeneration(
            f"this model reads prompts of more than {switches[0]} tokens in another way (longrope), and with "
            "them all that share their batch: give shorter and longer prompts apart"
        )
