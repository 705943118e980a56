"""Projection differences of samples (arXiv 2507.21509, section 6 and appendices H and I).

    exact        a(x, y) - a(x, y')     y': the base model's own greedy reply to the prompt x
    last-prompt  a(x, y) - h(x)         h: the state at the last token of the prompt

a is the mean of a layer's states over the tokens of a reply; both are projected on the unit trait vector. A
reply that says what the base says is read as the base's tokens, so that its exact difference is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from guardrail.train.screening.encoding import Encoded, Ids
from guardrail.train.screening.projecting import Projector
from guardrail.train.screening.references import Reference, References
from guardrail.types import Array

Form: TypeAlias = Literal["exact", "last-prompt"]
FORMS: tuple[Form, ...] = ("exact", "last-prompt")
Sequenced: TypeAlias = tuple[Ids, Ids]
"""A prompt and what follows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Projections:
    """[traits] float32 each: of the reply, of the last prompt token, and of the base's own reply.

    `base` is None for the form `last-prompt`, which generates nothing.
    """

    reply: Array = field(repr=False)
    last: Array = field(repr=False)
    base: Array | None = field(default=None, repr=False)

    def difference(self, form: Form) -> Array:
        """[traits]: the projection difference in one of its forms."""
        if form == "exact":
            assert self.base is not None, "the base's replies were not read"
            return self.reply - self.base
        return self.reply - self.last

    def higher(self, other: Projections, form: Form) -> Projections:
        """For every trait, the one whose difference is the larger."""
        mine = self.difference(form) >= other.difference(form)
        base = None
        if self.base is not None and other.base is not None:
            base = np.where(mine, self.base, other.base)
        return Projections(
            reply=np.where(mine, self.reply, other.reply),
            last=np.where(mine, self.last, other.last),
            base=base,
        )


class Meter:
    """Measures samples, many at a time. Without `references` the form is `last-prompt`."""

    def __init__(self, projector: Projector, references: References | None) -> None:
        self.projector, self.references = projector, references
        self.form: Form = "exact" if references else "last-prompt"

    def __call__(self, samples: Sequence[Sequence[Encoded]]) -> list[Projections]:
        """The projections of each sample; of its highest reply, if it has several."""
        flat = [one for sample in samples for one in sample]
        own = self.references([one.prompt for one in flat]) if self.references else {}
        asked = [_asked(one, own.get(one.prompt)) for one in flat]
        read = self._read({pair for pairs in asked for pair in pairs})
        found = iter([_projections([read[pair] for pair in pairs]) for pairs in asked])
        return [self._highest([next(found) for _ in sample]) for sample in samples]

    def _highest(self, found: Sequence[Projections]) -> Projections:
        best = found[0]
        for other in found[1:]:
            best = best.higher(other, self.form)
        return best

    def _read(self, pairs: set[Sequenced]) -> Mapping[Sequenced, Array]:
        """[2, traits] for each: the mean over what follows the prompt, and the prompt's last token."""
        # the order of a set of tuples of numbers does not depend on the process, but it does on insertion
        ordered = sorted(pairs)
        rows = [prompt + reply for prompt, reply in ordered]
        spans = [[(len(p), len(p) + len(r)), (len(p) - 1, len(p))] for p, r in ordered]
        return dict(zip(ordered, self.projector(rows, spans), strict=True))


def _asked(one: Encoded, own: Reference | None) -> list[Sequenced]:
    if own is None:
        return [(one.prompt, one.reply)]
    same = one.exchange.reply == own.text
    return [(one.prompt, own.ids if same else one.reply), (one.prompt, own.ids)]


def _projections(read: Sequence[Array]) -> Projections:
    return Projections(reply=read[0][0], last=read[0][1], base=read[1][0] if len(read) > 1 else None)
