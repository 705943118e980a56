"""The provenance of trait vectors: their data, their stability, and how layers were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from guardrail.statistics.intervals import Estimate
from guardrail.types import Fingerprint

STEADY = 0.7
"""The least split half of a vector to rely on. From there on the whole vector's expected cosine with the
direction that all possible questions would give is at least 0.9 (Spearman-Brown: sqrt(2 r / (1 + r)))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """How much a direction depends on the choice of questions; one number per layer 0 to L.

    `split_half`: cosine between the directions of two halves of the questions. `bootstrap_low`: the 5th
    percentile of the cosine between the direction and those of resampled questions. `relative_norm`: its
    norm divided by the mean norm of the states.
    """

    questions: int
    split_half: tuple[float, ...]
    bootstrap_low: tuple[float, ...]
    relative_norm: tuple[float, ...]

    def unsteady(self, layer: int) -> str | None:
        """What to say of a direction that would be another one with other questions, else None."""
        cosine = self.split_half[layer]
        if cosine >= STEADY:
            return None
        return (
            f"at layer {layer} the directions of two halves of its {self.questions} questions have a cosine "
            f"of {cosine:.2f}, below {STEADY:g}: with other questions it would be another vector"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Induction:
    """Whether the judge's scores show the trait. `difference`: by how many points replies that were asked for
    it score higher than those to the same questions that were asked for the opposite, by question.

    `chance`, `chance_high`: the mean and the 99th percentile of the pairs that the filter keeps if the two
    sides are shuffled within each question; `p`: how often it keeps as many as it kept.
    """

    difference: Estimate | None
    chance: float
    chance_high: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Untangled:
    """The effect of orthogonalisation on one trait's steering directions; one number per layer 1 to L.

    `cosine` is that with the original direction. The AUROCs are of the projection on either direction:
    held-out prompts that ask for the trait against neutral ones, against those that forbid it, and against
    those that ask for another trait.
    """

    cosine: tuple[float, ...]
    auroc_before: tuple[float, ...]
    auroc_after: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraitSource:
    """The source of one trait's vector. `positive` and `negative` count the replies that were kept.

    The AUROCs are of the probe at layers 1 to L on held-out questions: prompts that ask for the trait against
    neutral ones and those that forbid it (`detection_auroc`), or against those that ask for other traits.
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
    numeric_mass: float | None = None
    """Mean probability of all numbers among the judge's answers; None if it gives no probabilities."""
    induction: Induction | None = None
    stability: Stability | None = None
    untangled: Untangled | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The file of another tool that one trait's vector was read from.

    `first_block` is the file's number for the first decoder block; None if it counts layers as we do.
    """

    file: str
    sha256: str
    format: str
    first_block: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChoice:
    """How one trait's layer was chosen: the selector, the rule and the candidates.

    `scores` are the values that the selector compared, one per layer in `layers`; None for excluded layers.
    """

    selector: str
    rule: str
    layer: int
    layers: tuple[int, ...]
    scores: tuple[float | None, ...]
    sweep_sha256: str
    position: int | None = None
    """The token position of the candidate (negative, from the prompt's end), if the sweep has several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitCandidate:
    """What a probe could read, a way to fit it, and how it did on prompts that were held out.

    `value` is the criterion, `error` the standard error of its distance to the best candidate (None for those
    far behind), `auroc` the mean over checks and pairs of sources.
    """

    places: tuple[tuple[int, str], ...]
    """Layer and position of each site."""
    normalised: bool
    method: str
    penalty: float | None
    value: float
    auroc: float
    error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSource:
    """The prompts of one class from one source; `fired` is the share of them above the check's threshold."""

    source: str
    label: bool
    prompts: int
    fired: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class FitCheck:
    """The chosen candidate on prompts that were held out of its fit, fold by fold as in `held_out`.

    The threshold is the lowest one that no harmless source exceeds at more than 1 %; `recall` is the mean
    over sources. The candidate was also chosen by these numbers, so fresh prompts will do a little worse.
    """

    name: str
    held_out: tuple[str, ...]
    auroc: Estimate
    recall: Estimate
    sources: tuple[FitSource, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFit:
    """How one trait's probe was fitted on labelled prompts. `candidates` begins with the chosen one."""

    data_sha256: str
    criterion: str
    reason: str
    checks: tuple[FitCheck, ...]
    candidates: tuple[FitCandidate, ...]
    duplicates: int = 0
    """Prompts that were repeated, and left out."""
    warnings: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    """A digest of each prompt's text, so that thresholds are not set on prompts that the fit has seen."""
    positives: tuple[float, ...] = ()
    """Ascending: projections of the prompts with the trait that the last check held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How and from what a vector file was made; `fingerprint` is the model's."""

    fingerprint: Fingerprint
    method: str
    created: str
    position: str = "response_mean"
    seeds: tuple[int, ...] = ()
    traits: Mapping[str, TraitSource] = field(default_factory=dict[str, TraitSource])
    notes: str = ""
    imported: Mapping[str, Imported] = field(default_factory=dict[str, Imported])
    layer_choices: Mapping[str, LayerChoice] = field(default_factory=dict[str, LayerChoice])
    fits: Mapping[str, LabelledFit] = field(default_factory=dict[str, LabelledFit])


LATER_FIELDS = ("imported", "layer_choices", "fits")
LATER_FIT_FIELDS = ("positives",)
LATER_SOURCE_FIELDS = (
    "others_auroc",
    "rollouts",
    "positive_mean",
    "negative_mean",
    "baseline",
    "judge",
    "numeric_mass",
    "induction",
    "stability",
    "untangled",
)
"""Left out of the header if empty, so that files written before these fields keep their sha256."""
