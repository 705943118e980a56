"""The options of `guardrail vectors extract` and `guardrail vectors layers`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from typer import Option

from guardrail.cli.options import settings
from guardrail.cli.panels import Panel
from guardrail.cli.places import check_file
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.extract.settings import ExtractionSettings


RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")


class Selector(StrEnum):
    """The rules of `guardrail.extract.layers.selection`."""

    STEERING = "steering"
    SEPARATION = "separation"
    REFUSAL = "refusal"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOptions:
    """Where work is kept until a file is written, and whether it may replace another one."""

    work: Annotated[
        Path | None,
        Option(help="Folder for intermediate results, to resume from. Default: next to --out."),
    ] = None
    force: Annotated[bool, Option("--force", help="Overwrite --out if it exists.")] = False

    def folder(self, out: Path, suffix: str) -> Path:
        """The folder that keeps results."""
        return self.work or out.with_name(f"{out.name}.{suffix}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFileOptions(WorkOptions):
    """The vector file that is written."""

    out: Annotated[Path, Option(help="Vector file to write (.safetensors).")]

    def __post_init__(self) -> None:
        check_new(self.out, self.force)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenFileOptions(WorkOptions):
    """The vector file that is written with the chosen layers."""

    out: Annotated[
        Path | None,
        Option(help="Vector file to write (.safetensors). Without it --sweep only prints the choice."),
    ] = None

    def __post_init__(self) -> None:
        if self.out is not None:
            check_new(self.out, self.force)

    def written(self) -> Path:
        """The file to write. Raises ConfigError if none is named."""
        if self.out is None:
            raise ConfigError("--out is missing: name the vector file to write")
        return self.out


def layer_list(text: str) -> tuple[int, ...]:
    """The layers that --layers names, in order. Raises ConfigError."""
    ends = [RANGE.fullmatch(part.strip()) for part in text.split(",")]
    found = {layer for one in ends if one for layer in range(int(one[1]), int(one[2] or one[1]) + 1)}
    if not all(ends) or not found:
        raise ConfigError(f"--layers: `{text}` is not a list of layers such as 8,12,16-20")
    return tuple(sorted(found))


def check_new(out: Path, force: bool) -> None:
    """Raises ConfigError for a file that cannot be made, or exists and is not to be replaced."""
    check_file(out)
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; nothing was written. Name another file, or replace it with --force")


# --- extract ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOptions:
    """The replies that vectors are made from."""

    panel: ClassVar = Panel.REPLIES

    questions: Annotated[
        int | None, Option(min=2, help="Use only the first questions of each set. Default: all.")
    ] = None
    samples: Annotated[int, Option(min=1, help="Number of replies per prompt.")] = 10
    minimum: Annotated[int, Option("--min-pairs", min=1, help="Minimum number of kept pairs per trait.")] = 20
    max_new_tokens: Annotated[int, Option(min=1, help="Maximum tokens per reply.")] = 256
    temperature: Annotated[float, Option(min=0, help="Sampling temperature. 0 is greedy.")] = 1.0
    top_p: Annotated[float, Option(min=0, max=1, help="Nucleus sampling. 1 keeps all tokens.")] = 1.0
    seed: Annotated[int, Option(min=0, help="Seed of the replies.")] = 0
    batch: Annotated[int, Option(min=1, help="Batch size. Resuming restarts an unfinished batch.")] = 64
    positive_system: Annotated[str, Option(help="Template for prompts that ask for the trait.")] = (
        "{instruction}"
    )
    negative_system: Annotated[str, Option(help="Template for prompts that forbid the trait.")] = (
        "{instruction}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionOptions:
    """How directions are found in the activations."""

    panel: ClassVar = Panel.METHOD

    probe: Annotated[
        str,
        Option(
            help="How to detect: `steering` (the unit steering vector), or an extraction method: difference, "
            "logistic, lda, pca, contrast, regression. `regression` judges every reply for every trait."
        ),
    ] = "contrast"
    steering: Annotated[str, Option(help="How to steer: an extraction method.")] = "difference"
    position: Annotated[
        str,
        Option(
            help="Positions to read steering vectors at: response_mean, last_prompt_token or prompt_mean."
        ),
    ] = "response_mean"
    orthogonalise: Annotated[
        bool, Option("--orthogonalise", help="Make the traits' steering vectors orthogonal to one another.")
    ] = False
    mixed: Annotated[
        Path | None, Option(help="Your own prompts for fitting probes, in the format of `check --input`.")
    ] = None
    mixed_samples: Annotated[int, Option(min=1, help="Replies to each prompt of --mixed.")] = 1


def extraction_settings(rollouts: RolloutOptions, directions: DirectionOptions) -> ExtractionSettings:
    """What extraction is given."""
    from guardrail.extract.prompts import SystemPrompts
    from guardrail.extract.rollouts import RolloutSettings
    from guardrail.extract.settings import ExtractionSettings

    return settings(
        ExtractionSettings,
        rollouts,
        directions,
        rollouts=settings(RolloutSettings, rollouts),
        systems=SystemPrompts(positive=rollouts.positive_system, negative=rollouts.negative_system),
    )


# --- layers -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceOptions:
    """Which layers are chosen, and by which rule."""

    panel: ClassVar = Panel.METHOD

    vectors: Annotated[
        str | None, Option(help="Vector file. Default: `demo`; none for a --sweep without --out.")
    ] = None
    trait: Annotated[list[str] | None, Option(help="Trait to choose a layer for. Default: all.")] = None
    by: Annotated[Selector, Option(help="Rule that chooses.")] = Selector.STEERING
    floor: Annotated[float, Option(help="Minimum mean coherence of the chosen layer.")] = 75.0
    no_floor: Annotated[bool, Option("--no-floor", help="Choose without regard to coherence.")] = False

    @property
    def least_coherence(self) -> float | None:
        """The floor, or None if there is none."""
        return None if self.no_floor else self.floor


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """The sweep over the layers."""

    panel: ClassVar = Panel.METHOD

    sweep: Annotated[
        Path | None, Option(help="Earlier sweep, or a direction_evaluations.json. No model is loaded.")
    ] = None
    definition: Annotated[
        Path | None, Option(help="Definition file or folder, for traits that are not built in.")
    ] = None
    layers: Annotated[
        str | None, Option(help="Layers to try, such as 8,12,16-20. Default: all that can be used.")
    ] = None
    questions: Annotated[
        int | None, Option(min=1, help="Use only the first evaluation questions. Default: all.")
    ] = None
    coefficient: Annotated[float, Option(help="Multiple of each layer's vector that is added.")] = 1.0
    samples: Annotated[int, Option(min=1, help="Replies to each question.")] = 5
    max_new_tokens: Annotated[int, Option(min=1, help="Maximum tokens per reply.")] = 256
    temperature: Annotated[float, Option(min=0.0, help="Sampling temperature. 0 is greedy.")] = 1.0
    seed: Annotated[int, Option(help="Seed of the replies.")] = 0

    def tried(self) -> tuple[int, ...] | None:
        """The layers that are named, in order; None for all. Raises ConfigError."""
        return None if self.layers is None else layer_list(self.layers)
