"""Batches for a model as data, so that they can be computed here or by copies of the model elsewhere.

A batch gives the same results wherever it is computed: its rows are decided on before it is handed out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from guardrail.engines import Continuation, Span
from guardrail.engines.transformers.activations import Site
from guardrail.engines.transformers.batches import averaging
from guardrail.engines.transformers.modes import evaluating
from guardrail.engines.transformers.sampling import SeededRows
from guardrail.engines.transformers.steering import steered
from guardrail.types import Array, Steering

if TYPE_CHECKING:
    from guardrail.extract.subject import Subject

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Job(Protocol[R_co]):
    """One batch. It is pickled if it is computed elsewhere, and so is its result."""

    def run(self, subject: Subject) -> R_co: ...


class Runner(Protocol):
    """Computes jobs, up to `width` at a time."""

    @property
    def width(self) -> int: ...
    def map(self, jobs: Sequence[Job[R]]) -> Iterator[R]:
        """The results, in the order of the jobs."""
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """Computes one job after another, with this model."""

    subject: Subject
    width: int = 1

    def map(self, jobs: Sequence[Job[R]]) -> Iterator[R]:
        """The results, each computed when it is asked for."""
        return (job.run(self.subject) for job in jobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Continues token ids. Greedy at temperature 0; else every row draws by its own seed."""

    rows: Sequence[Sequence[int]]
    seeds: Sequence[int]
    max_new_tokens: int
    temperature: float
    top_p: float
    steering: Sequence[Steering]

    def run(self, subject: Subject) -> list[Continuation]:
        """The continuations, in the order of the rows."""
        ids, mask = subject.local.padded(self.rows, left=True)
        width, new = ids.shape[1], self.max_new_tokens
        draws = self.temperature > 0
        sampler = [SeededRows(self.seeds, width, new, self.temperature, self.top_p)] if draws else []
        modules = subject.local.inner.modules()
        with evaluating(modules), torch.inference_mode(), steered(subject.blocks, self.steering):
            output = subject.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=_decoding(subject, new),
                logits_processor=sampler,
            )
        return [_continuation(subject, row) for row in output[:, width:].tolist()]


def _decoding(subject: Subject, new_tokens: int) -> Any:
    from transformers import GenerationConfig

    # a value left None would be filled in from the model's own configuration
    return GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        pad_token_id=subject.local.pad_token,
        eos_token_id=sorted(subject.local.end_tokens) or None,
    )


def _continuation(subject: Subject, row: Sequence[int]) -> Continuation:
    ends = subject.local.end_tokens
    stop = next((i for i, token in enumerate(row) if token in ends), None)
    ids = tuple(row) if stop is None else tuple(row[: stop + 1])
    text = subject.tokenizer.decode(ids, skip_special_tokens=True)
    return Continuation(str(text), ids, stop is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """Reads token ids, and averages the states over k sets of runs of tokens in each row."""

    rows: Sequence[Sequence[int]]
    runs: Sequence[Sequence[Sequence[Span]]]

    def run(self, subject: Subject) -> Array:
        """[rows, k, L + 1, d_model] float32. Rows are padded on the right."""
        ids, mask = subject.local.padded(self.rows, left=False)
        weights = averaging(self.runs, ids.shape[1]).to(subject.device)
        sites = [Site(layer) for layer in range(subject.layers + 1)]
        found = subject.activations.read(ids, mask, sites, weights)
        return torch.stack([found[site].cpu() for site in sites], dim=2).numpy()
