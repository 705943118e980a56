"""Whether a model is a finetune of another: the same architecture, sizes and tokenizer, similar weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from guardrail.engines.transformers.additions import additions
from guardrail.engines.transformers.weights import sampled
from guardrail.errors import ModelError, VectorError
from guardrail.extract.subject import Subject
from guardrail.train.shift.results import Descent
from guardrail.types import Fingerprint
from guardrail.vectors.values import TraitVectors

SIZES = ("architecture", "layers", "d_model", "vocab_size")
ALIKE = 0.5
"""The least median cosine between weight matrices of a model and its finetune. Unrelated models have 0."""
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Ancestor:
    """What is remembered of a base, so that it does not have to stay in memory."""

    name: str
    fingerprint: Fingerprint
    tokenizer: Any = field(repr=False)
    weights: Mapping[str, Tensor] = field(repr=False)
    """Up to 64 numbers of each weight matrix."""

    @classmethod
    def of(cls, subject: Subject, name: str) -> Self:
        """For a model that is loaded."""
        return cls(name, subject.fingerprint, subject.tokenizer, _matrices(subject.local.inner))

    def check_vectors(self, vectors: TraitVectors) -> None:
        """Raises VectorError unless the vectors were made for this model."""
        check_base(vectors, self.name, self.fingerprint)

    def descent(self, tuned: Subject, name: str) -> Descent:
        """How a model descends from this one. Raises ModelError if it does not seem to."""
        self._check_sizes(tuned.fingerprint, name)
        self._check_tokenizer(tuned, name)
        notes = self._template_notes(tuned.fingerprint, name)
        weights = tuned.fingerprint.weights
        if weights == self.fingerprint.weights:
            same = f"{name} has the weights of {self.name}: nothing was trained, or nothing was loaded"
            return Descent(kind="same weights", weights=weights, notes=(*notes, same))
        if additions(tuned.local.inner):
            return Descent(kind="adapter", weights=weights, notes=notes)
        changed, cosine = self._change(tuned, name)
        return Descent(kind="full weights", weights=weights, changed=changed, cosine=cosine, notes=notes)

    def _check_sizes(self, theirs: Fingerprint, name: str) -> None:
        for size in SIZES:
            ours, found = getattr(self.fingerprint, size), getattr(theirs, size)
            if ours != found:
                raise ModelError(f"{name} is no finetune of {self.name}: its {size} is {found}, not {ours}")

    def _check_tokenizer(self, tuned: Subject, name: str) -> None:
        if tuned.fingerprint.tokenizer == self.fingerprint.tokenizer:
            return
        ours, theirs = self.tokenizer.get_vocab(), tuned.tokenizer.get_vocab()
        odd = sorted(token for token, place in theirs.items() if ours.get(token) != place)
        odd = odd or sorted(set(ours) - set(theirs))
        raise ModelError(
            f"the tokenizers of {name} and {self.name} differ in {len(odd)} tokens, such as "
            f"{', '.join(f'`{token}`' for token in odd[:SHOWN])}: the two would not read the same prompts"
        )

    def _template_notes(self, theirs: Fingerprint, name: str) -> tuple[str, ...]:
        if theirs.chat_template == self.fingerprint.chat_template:
            return ()
        return (
            f"{name} has another chat template than {self.name}; both read prompts in that of {self.name}",
        )

    def _change(self, tuned: Subject, name: str) -> tuple[float | None, float | None]:
        """(change, cosine), medians over weight matrices; None if none can be compared."""
        theirs = _matrices(tuned.local.inner)
        both = [(self.weights[key], theirs[key]) for key in self.weights if key in theirs]
        if not both:
            return None, None
        cosine = _median([torch.cosine_similarity(a, b, dim=0) for a, b in both])
        if cosine < ALIKE:
            raise ModelError(
                f"{name} does not seem to be a finetune of {self.name}: their weights have a cosine of "
                f"{cosine:.2f}, and a finetune's is near 1. The vectors of {self.name} mean nothing in it"
            )
        return _median([(b - a).norm() / a.norm().clamp(min=1e-12) for a, b in both]), cosine


def check_base(vectors: TraitVectors, name: str, fingerprint: Fingerprint) -> None:
    """Raises VectorError unless the vectors were made for the base."""
    if different := vectors.provenance.fingerprint.differences(fingerprint):
        raise VectorError(
            f"the vectors were not made for the base {name} (different: {', '.join(different)}); "
            "a shift is measured along the vectors of the base model"
        )


def _matrices(model: Any) -> dict[str, Tensor]:
    """Samples of the weight matrices, by name; not of norms, whose weights are near 1 in any model."""
    return {
        name.replace(".base_layer.", "."): sampled(tensor)
        for name, tensor in model.named_parameters()
        if tensor.ndim > 1 and tensor.is_floating_point() and tensor.device.type != "meta"
    }


def _median(values: list[Tensor]) -> float:
    return float(torch.stack(values).median())
