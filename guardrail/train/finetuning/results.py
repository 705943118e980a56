"""What a finetuning did, in types: for Python, and for the file `finetune.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from guardrail.statistics.intervals import Estimate
from guardrail.train.finetuning.settings import FinetuneSettings
from guardrail.train.intervention import Applied
from guardrail.types import Fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How the model was at one step. None for what was not asked for, or could not be judged.

    traits: mean judged scores, 0 to 100. capability: the share of right answers. held_out_loss: nats a token.
    """

    step: int
    traits: Mapping[str, Estimate | None] = field(default_factory=dict[str, Estimate | None])
    coherence: Estimate | None = None
    capability: Estimate | None = None
    held_out_loss: Estimate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneReport:
    """`losses`: the training loss of each step. `tokens`, `trained_tokens`: in one pass over the data.

    `resumed_at`: the steps at which an interrupted run went on. `seconds`: of the last run alone.
    """

    settings: FinetuneSettings
    data_sha256: str
    conversations: int
    tokens: int
    trained_tokens: int
    parameters: int
    intervention: Applied | None
    steps: int
    losses: tuple[float, ...]
    evaluations: tuple[Evaluation, ...]
    resumed_at: tuple[int, ...]
    seconds: float
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneFile:
    """What `finetune.json` holds. `aside`: rows of the data that were not trained on, by what is wrong."""

    model: str
    fingerprint: Fingerprint
    data: str
    data_sha256: str
    aside: Mapping[str, int]
    vectors_sha256: str | None
    judge: str | None
    report: FinetuneReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuned:
    """The model, in evaluation mode, and what was done to it."""

    model: Any
    report: FinetuneReport
