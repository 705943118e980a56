"""How far a patch moves a run from its own answer to the other run's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail.interpret.patching.runs import Recorded


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers that two runs prefer, as tokens, and how far apart they are.

    gap: (logit of the source's answer less that of the target's) in the source's run less in the target's,
    which is as well the difference of log-probabilities.
    """

    source: int
    target: int
    gap: float

    @property
    def differ(self) -> bool:
        """Whether the persona changes the answer."""
        return self.source != self.target


def answers(allowed: Sequence[int], source: Recorded, target: Recorded) -> Answers:
    """What each of two runs answers, among the tokens allowed, if any are."""
    a, b = (preferred(run.logits[None], allowed)[0] for run in (source, target))
    gap = (source.logits[a] - source.logits[b]) - (target.logits[a] - target.logits[b])
    return Answers(a, b, float(gap))


def preferred(logits: Tensor, allowed: Sequence[int]) -> list[int]:
    """The token with the largest logit in each row [rows, vocabulary], among those allowed, if any are."""
    if not allowed:
        return logits.argmax(-1).tolist()
    tokens = torch.tensor(list(allowed), device=logits.device)
    return tokens[logits[:, tokens].argmax(-1)].tolist()


@dataclass(frozen=True, slots=True)
class Moved:
    """What patches did to a run. effects: 0 where it stayed as it was, 1 where it became the donor's.

    kl: nats, of the patched run's distribution from the donor's.
    """

    effects: list[float]
    flips: list[bool]
    kl: list[float]


def moved(
    logits: Tensor, base: Recorded, donor: Recorded, own: int, other: int, allowed: Sequence[int]
) -> Moved:
    """Effects of patches on logits [rows, vocabulary]. own, other: what base and donor answer."""

    def lead(values: Tensor) -> Tensor:
        return values[..., own] - values[..., other]

    gap = lead(base.logits) - lead(donor.logits)
    effects = (lead(base.logits) - lead(logits)) / gap
    wanted, got = torch.log_softmax(donor.logits, -1), torch.log_softmax(logits, -1)
    kl = (wanted.exp() * (wanted - got)).sum(-1).clamp(min=0)
    flips = [token == other for token in preferred(logits, allowed)]
    return Moved(effects.tolist(), flips, kl.tolist())
