"""Putting rows that were stopped back among those that were generated, as `generate` would return them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from guardrail.engines import Generated
from guardrail.engines.transformers.model import LocalModel
from guardrail.engines.transformers.returned import returned
from guardrail.engines.transformers.rows import Kept
from guardrail.engines.transformers.unsupported import prompt_ids, setting


def assemble(
    local: LocalModel, kwargs: Mapping[str, Any], generated: Generated | None, answers: Mapping[int, str]
) -> Any:
    """The output for all rows. A stopped row is prompt, tokenised message, end-of-sequence, padding.

    If a streamer already has a part of the reply, that part comes before the message.
    """
    output = generated.output if generated else None
    if not answers:
        return output
    ids = prompt_ids(kwargs)
    samples = int(setting("num_return_sequences", kwargs, local.inner.generation_config) or 1)
    end, pad = special_tokens(local, kwargs)
    if (streamer := kwargs.get("streamer")) is not None:
        if not (generated and generated.completions):
            # like everything else, the prompts are held back until a reply goes on
            streamer.put(ids.repeat_interleave(samples, 0).cpu())
        _finish_streamer(streamer, ids, local, answers, samples, pad)
    kept = _by_prompt(output, generated, samples)
    sent = _sent(kwargs, generated, kept, ids.shape[1])
    rows = {
        row: [*ids[row].tolist(), *sent.get(row, ()), *local.renderer.encode(text), end]
        for row, text in answers.items()
    }
    stacked = [[rows[p]] * samples if p in rows else kept[p] for p in range(len(ids))]
    sequences = _padded([row for group in stacked for row in group], pad, ids.device)
    if not setting("return_dict_in_generate", kwargs, local.inner.generation_config):
        return sequences
    goes_on = list(generated.completions) if generated else []
    beams = int(setting("num_beams", kwargs, local.inner.generation_config) or 1)
    return returned(output, sequences, Kept(goes_on, len(ids)), beams, sequences.shape[1] - ids.shape[1])


def special_tokens(local: LocalModel, kwargs: Mapping[str, Any]) -> tuple[int, int]:
    """The token that ends a row, and the one that fills it up."""
    ends = setting("eos_token_id", kwargs, local.inner.generation_config)
    ends = ends.tolist() if isinstance(ends, Tensor) else ends
    end = ends[0] if isinstance(ends, list) else ends
    end = local.tokenizer.eos_token_id if end is None else end
    own = setting("pad_token_id", kwargs, local.inner.generation_config)
    pad = next(token for token in (own, local.tokenizer.pad_token_id, end, 0) if token is not None)
    return (pad if end is None else end), pad


def _by_prompt(output: Any, generated: Generated | None, samples: int) -> dict[int, list[list[int]]]:
    if output is None or generated is None:
        return {}
    rows = getattr(output, "sequences", output).tolist()
    return {p: rows[i * samples : (i + 1) * samples] for i, p in enumerate(generated.completions)}


def _sent(
    kwargs: Mapping[str, Any], generated: Generated | None, kept: Mapping[int, list[list[int]]], width: int
) -> dict[int, list[int]]:
    """The tokens of stopped replies that a streamer already has."""
    if kwargs.get("streamer") is None or generated is None:
        return {}
    stopped = {row: c.new_tokens for row, c in generated.completions.items() if c.stopped is not None}
    return {row: kept[row][0][width : width + count] for row, count in stopped.items()}


def _padded(rows: list[list[int]], pad: int, device: torch.device) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)


def _finish_streamer(
    streamer: Any, ids: Tensor, local: LocalModel, answers: Mapping[int, str], samples: int, pad: int
) -> None:
    """Send the answers, one token of each row at a time, and the end."""
    said = [local.renderer.encode(answers[row]) if row in answers else [] for row in range(len(ids))]
    rows = [row for row in said for _ in range(samples)]
    for tokens in zip_longest(*rows, fillvalue=pad):
        streamer.put(torch.tensor(tokens, device="cpu"))
    streamer.end()
