"""What a lens shows of every token of one prompt after every layer: figure 1 of Ozaki et al. (NLP 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from guardrail.engines import Prompt
from guardrail.extract.subject import Subject
from guardrail.interpret.lens.reading import Translate, as_it_is, read
from guardrail.interpret.lens.unembedding import Unembedding
from guardrail.types import Array, RawPrompt


@dataclass(frozen=True, slots=True)
class Picture:
    """A prompt's tokens, and for layers 1 to L [L, tokens] the likeliest next token and its probability."""

    model: str
    tokens: tuple[str, ...]
    shown: tuple[tuple[str, ...], ...]
    probabilities: tuple[tuple[float, ...], ...]


def _stacked(subject: Subject, prompt: Prompt) -> Array:
    """[tokens, L + 1, d_model]."""
    layers = range(subject.layers + 1)
    states = subject.local.hidden_states(prompt, layers, "all")
    return torch.stack([torch.from_numpy(states[layer]) for layer in layers], 1).numpy()


def look(
    subject: Subject, unembedding: Unembedding, text: str, name: str, translate: Translate = as_it_is
) -> Picture:
    """The picture of a text. Raises PromptError for one without tokens."""
    prompt = subject.local.renderer.raw(RawPrompt(text), subject.local.vocabulary)
    found = read(_stacked(subject, prompt), unembedding, translate)
    return Picture(
        name,
        tuple(_texts(subject, prompt.ids)),
        tuple(tuple(_texts(subject, row)) for row in found.tokens.T.tolist()),
        tuple(tuple(row) for row in found.probabilities.T.tolist()),
    )


def _texts(subject: Subject, ids: Sequence[int]) -> list[str]:
    return [str(subject.tokenizer.decode([one])) for one in ids]
