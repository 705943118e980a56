"""Sampling: our options as arguments of `generate`, and sampling with a seed for each row.

Neither touches the model's generation config.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from guardrail.types import Sampling


def generation_arguments(sampling: Sampling, model: Any, tokenizer: Any) -> dict[str, Any]:
    """What is not given is left to the model's own generation config."""
    arguments: dict[str, Any] = {"max_new_tokens": sampling.max_new_tokens}
    pad = model.generation_config.pad_token_id
    if pad is None:
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    arguments["pad_token_id"] = pad
    return arguments | _choosing(sampling)


def _choosing(sampling: Sampling) -> dict[str, Any]:
    # greedy search needs none of the others, and warns about them
    if sampling.temperature == 0:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    given = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    found = {name: value for name, value in given.items() if value is not None}
    return {"do_sample": True, **found} if "temperature" in found else found


class Seeded(LogitsProcessor):
    """Has `generate` draw tokens from a stream of this seed: those that it would draw after `manual_seed`.

    The process's own generators are not touched. They belong to all threads, so whatever else samples at the
    same time would take numbers of this request, and get numbers from it.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._stream: torch.Generator | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The same scores."""
        if self._stream is None:
            self._stream = torch.Generator(scores.device).manual_seed(self._seed)
        return _with_stream(scores, self._stream)


class _Drawn(Tensor):
    """Scores that are drawn from a stream of their own. What is computed from them is of this kind as well.

    `generate` takes no generator, and a torch function mode would see every operation of the model.
    """

    stream: torch.Generator

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        stream = next(one.stream for one in (*args, *kwargs.values()) if isinstance(one, _Drawn))
        if func is torch.multinomial:
            # batching draws each of several replies from a stream that it names
            kwargs.setdefault("generator", stream)
        with torch._C.DisableTorchFunctionSubclass():  # pyright: ignore[reportPrivateUsage]
            found = func(*args, **kwargs)
        floats = isinstance(found, Tensor) and found.is_floating_point()
        return _with_stream(found, stream) if floats else found


def _with_stream(scores: Tensor, stream: torch.Generator) -> _Drawn:
    found = scores.as_subclass(_Drawn)
    found.stream = stream
    return found


class SeededRows(LogitsProcessor):
    """Leaves only one token possible in each row: the one chosen by the row's own random stream.

    A reply then does not depend on what else is in its batch. Each row has its own stream of uniform numbers,
    drawn on the CPU, and step t takes the token at which the cumulative distribution passes number t
    (inversion). Two runs differ only if rounding moves that boundary across the number: about one token in a
    million in float32, more in half precision.

    prompt: the columns before the reply. temperature > 0; top_p keeps the smallest set of tokens that holds
    this much probability (Holtzman et al. 2020). To be used with greedy decoding.
    """

    def __init__(
        self, seeds: Sequence[int], prompt: int, new_tokens: int, temperature: float, top_p: float
    ) -> None:
        self.prompt, self.temperature, self.top_p = prompt, temperature, top_p
        self.draws = torch.stack([_stream(seed, new_tokens) for seed in seeds])

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits [rows, vocabulary] to logits with one finite entry in each row."""
        draw = self.draws[:, input_ids.shape[1] - self.prompt, None].to(scores.device)
        probabilities = torch.softmax(scores.double() / self.temperature, dim=-1)
        if self.top_p < 1:
            probabilities = _nucleus(probabilities, self.top_p)
        token = _inverted(probabilities, draw)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


def _stream(seed: int, length: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed % (1 << 63))
    return torch.rand(length, generator=generator, dtype=torch.float64, device="cpu")


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    ordered, places = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(probabilities).scatter(1, places, ordered.masked_fill(before >= top_p, 0.0))


def _inverted(probabilities: Tensor, draw: Tensor) -> Tensor:
    cumulative = probabilities.cumsum(-1)
    token = torch.searchsorted(cumulative, draw * cumulative[:, -1:], right=True)
    return token.clamp(max=probabilities.shape[1] - 1)
