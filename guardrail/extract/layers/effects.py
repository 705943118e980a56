"""The measurements of a layer sweep: the effect of one layer's vector on replies and the next token."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guardrail.engines import Continuation
from guardrail.engines.transformers.batches import padded
from guardrail.engines.transformers.blocks import unwrapped
from guardrail.engines.transformers.steering import steered
from guardrail.extract.judges.scores import coherence_scores, trait_scores
from guardrail.extract.prompts import RolloutPrompt
from guardrail.extract.rollouts import row_seed
from guardrail.extract.subject import Subject
from guardrail.plugins.protocols import Judge
from guardrail.statistics.intervals import clustered_mean
from guardrail.traits import TraitDefinition
from guardrail.types import Steering
from guardrail.vectors.values import TraitVector, unit

POOL = "layers"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings:
    """What a sweep tries, and how it replies: `samples` per question, the same seeds at every layer."""

    coefficient: float = 1.0
    samples: int = 5
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    questions: int | None = None
    """The number of evaluation questions, all of them for None."""
    layers: tuple[int, ...] | None = None
    """The layers to try, all usable ones for None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The model, judge, definition and settings of a sweep."""

    subject: Subject
    judge: Judge
    definition: TraitDefinition
    settings: SweepSettings


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Mean judged scores; None if nothing was judged. `refused` counts replies without a trait score.

    interval: 95 %, of the trait's mean; None if replies to fewer than two questions were judged.
    """

    trait: float | None
    coherence: float | None
    refused: int
    interval: tuple[float, float] | None


def adding(vector: TraitVector, layer: int, coefficient: float) -> Steering:
    """h += coefficient v at this layer."""
    direction = np.asarray(coefficient * vector.steering[layer], dtype=np.float32)
    return Steering(policy=POOL, trait=vector.trait, operator="add", layers=(layer,), directions=(direction,))


def ablating(vector: TraitVector, layer: int) -> Steering:
    """h -= <h, u> u at every layer, with this layer's direction u (arXiv 2406.11717, 2.4)."""
    layers = tuple(range(1, vector.layers + 1))
    directions = (unit(vector.steering[layer]),) * len(layers)
    return Steering(policy=POOL, trait=vector.trait, operator="ablate", layers=layers, directions=directions)


def judged(trial: Trial, prompts: Sequence[RolloutPrompt], steering: Sequence[Steering]) -> Verdicts:
    """Generate replies to every prompt under this steering and have them judged."""
    asked = [prompt for prompt in prompts for _ in range(trial.settings.samples)]
    said = list(zip(asked, _replies(trial, prompts, asked, steering), strict=True))
    traits = trait_scores(trial.judge, trial.definition, said)
    return Verdicts(
        trait=_mean(traits),
        coherence=_mean(coherence_scores(trial.judge, said)),
        refused=traits.count(None),
        interval=_interval([prompt.question for prompt in asked], traits),
    )


def _replies(
    trial: Trial,
    prompts: Sequence[RolloutPrompt],
    asked: Sequence[RolloutPrompt],
    steering: Sequence[Steering],
) -> list[Continuation]:
    settings = trial.settings
    seeds = [row_seed(settings.seed, POOL, p, sample) for p in prompts for sample in range(settings.samples)]
    return trial.subject.replies(
        [prompt.messages for prompt in asked],
        seeds=seeds,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        steering=steering,
    )


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def _interval(questions: Sequence[int], scores: Sequence[float | None]) -> tuple[float, float] | None:
    """Student's over the means of questions, within 0 to 100."""
    known = [(score, one) for score, one in zip(scores, questions, strict=True) if score is not None]
    found = clustered_mean(*zip(*known, strict=True)) if known else None
    return (max(found.low, 0.0), min(found.high, 100.0)) if found else None


def next_token(
    subject: Subject, prompts: Sequence[RolloutPrompt], steering: Sequence[Steering] = ()
) -> Tensor:
    """[prompts, vocabulary] float64 log-probabilities of the first reply token, steered as by the guard."""
    encoded = [subject.render(prompt.messages).ids for prompt in prompts]
    found: dict[int, Tensor] = {}
    for batch in subject.batches([len(ids) for ids in encoded]):
        logits = _logits(subject, [encoded[i] for i in batch], steering)
        found |= zip(batch, torch.log_softmax(logits.double().cpu(), dim=-1), strict=True)
    return torch.stack([found[i] for i in range(len(encoded))])


def _logits(subject: Subject, rows: Sequence[Sequence[int]], steering: Sequence[Steering]) -> Tensor:
    model = unwrapped(subject.model)
    ids, mask = padded(rows, 0, left=True, device=subject.device)
    known = inspect.signature(model.forward).parameters
    optional = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0), "logits_to_keep": 1}
    accepted = {name: value for name, value in optional.items() if name in known}
    with torch.inference_mode(), steered(subject.blocks, steering):
        return model(input_ids=ids, attention_mask=mask, use_cache=False, **accepted).logits[:, -1]


def divergence(plain: Tensor, changed: Tensor) -> float:
    """Mean over prompts of KL(plain || changed) in nats; both [prompts, vocabulary] log-probabilities."""
    terms = plain.exp() * (plain - changed)
    return float(terms.nan_to_num(nan=0.0).sum(-1).mean())
