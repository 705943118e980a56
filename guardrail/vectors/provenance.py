"""Where trait vectors come from: what they were made of, how stable they are, how layers were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from guardrail.types import Fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """How much a direction depends on which questions it was made from; one number for each layer 0 to L.

    `split_half`: cosine between the directions of two halves of the questions. `bootstrap_low`: the 5th
    percentile of the cosine between the direction and those of resampled questions. `relative_norm`: its
    norm divided by the mean norm of the states.
    """

    questions: int
    split_half: tuple[float, ...]
    bootstrap_low: tuple[float, ...]
    relative_norm: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Untangled:
    """What orthogonalisation did to one trait's steering directions; one number for each layer 1 to L.

    `cosine` with the direction before. AUROC of the projection on either direction, held-out prompts that ask
    for the trait against neutral ones, those that forbid it, and those that ask for another trait.
    """

    cosine: tuple[float, ...]
    auroc_before: tuple[float, ...]
    auroc_after: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraitSource:
    """Where one trait's vector comes from. `positive` and `negative` count the replies that were kept.

    AUROC of the probe at layers 1 to L on held-out questions, prompts that ask for the trait against neutral
    ones and those that forbid it (`detection_auroc`) or against those that ask for other traits.
    """

    definition_sha256: str
    positive: int
    negative: int
    detection_auroc: tuple[float, ...] = ()
    others_auroc: tuple[float, ...] = ()
    rollouts: int = 0
    """Pairs of replies before the filter."""
    positive_mean: float | None = None
    """Mean judged score of replies to prompts that ask for the trait, before the filter."""
    negative_mean: float | None = None
    baseline: float | None = None
    """Mean judged score without a system prompt."""
    judge: str = ""
    stability: Stability | None = None
    untangled: Untangled | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The file of another tool that one trait's vector was read from.

    `first_block` is the number that the file gives to the first decoder block; None where it counts as we do.
    """

    file: str
    sha256: str
    format: str
    first_block: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChoice:
    """How one trait's layer was chosen: by which selector, under which rule, out of what.

    `scores` are what the selector compared, one for each of `layers`; None where the rule excluded the layer.
    """

    selector: str
    rule: str
    layer: int
    layers: tuple[int, ...]
    scores: tuple[float | None, ...]
    sweep_sha256: str
    position: int | None = None
    """The token position of the candidate (negative, from the prompt's end), where the sweep has several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a vector file was made of and how; `fingerprint` is the model's."""

    fingerprint: Fingerprint
    method: str
    created: str
    position: str = "response_mean"
    seeds: tuple[int, ...] = ()
    traits: Mapping[str, TraitSource] = field(default_factory=dict[str, TraitSource])
    notes: str = ""
    imported: Mapping[str, Imported] = field(default_factory=dict[str, Imported])
    layer_choices: Mapping[str, LayerChoice] = field(default_factory=dict[str, LayerChoice])


LATER_FIELDS = ("imported", "layer_choices")
LATER_SOURCE_FIELDS = (
    "others_auroc",
    "rollouts",
    "positive_mean",
    "negative_mean",
    "baseline",
    "judge",
    "stability",
    "untangled",
)
"""Left out of the header where empty, so that files written before these fields keep their sha256."""
