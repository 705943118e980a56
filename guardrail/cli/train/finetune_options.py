"""The options of `guardrail train finetune`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Argument, Option

from guardrail.cli.panels import Panel
from guardrail.errors import ConfigError


class Kind(StrEnum):
    """The interventions."""

    STEERING = "steering"
    ABLATION = "ablation"
    REGULARISER = "regulariser"
    PROMPTING = "prompting"
    INOCULATION = "inoculation"


VECTORS = (Kind.STEERING, Kind.ABLATION, Kind.REGULARISER)
"""The interventions that need vectors."""
USED: Mapping[Kind, Sequence[str]] = {
    **dict.fromkeys(VECTORS, ("trait", "vectors", "layer")),
    Kind.STEERING: ("trait", "vectors", "layer", "coefficient"),
    **dict.fromkeys((Kind.PROMPTING, Kind.INOCULATION), ("trait", "prompt")),
}
"""The options that each of them reads."""


class LossOn(StrEnum):
    """The tokens that are trained on."""

    COMPLETION = "completion"
    LAST = "last"
    ALL = "all"


class Autocast(StrEnum):
    """The type of the arithmetic."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Curve(StrEnum):
    """The learning-rate schedule after the warm-up."""

    LINEAR = "linear"
    COSINE = "cosine"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What is trained on, and how."""

    panel: ClassVar = Panel.TRAINING

    data: Annotated[
        Path,
        Argument(
            help="Rows with `messages`, `prompt` and `completion`, or `prompt` and `response`: JSON Lines, "
            "Parquet, or a folder saved by `datasets`."
        ),
    ]
    out: Annotated[Path, Option(help="Folder for the model, its checkpoints and `finetune.json`.")]
    full: Annotated[bool, Option("--full", help="Train all weights instead of a LoRA adapter.")] = False
    lora_rank: Annotated[int, Option(min=1, help="Rank of the adapter.")] = 32
    lora_alpha: Annotated[float, Option(help="Scale of the adapter: alpha / sqrt(rank).")] = 64.0
    learning_rate: Annotated[float, Option(help="Peak learning rate.")] = 1e-5
    schedule: Annotated[Curve, Option(help="Learning-rate schedule after the warm-up.")] = Curve.LINEAR
    warmup_steps: Annotated[int, Option(min=0, help="Warm-up steps.")] = 5
    weight_decay: Annotated[float, Option(min=0.0, help="Weight decay of AdamW.")] = 0.01
    epochs: Annotated[float, Option(help="Passes over the data.")] = 1.0
    steps: Annotated[int | None, Option(min=1, help="Optimizer steps, instead of epochs.")] = None
    batch: Annotated[int, Option(min=1, help="Conversations per forward pass.")] = 2
    accumulation: Annotated[int, Option(min=1, help="Forward passes per optimizer step.")] = 8
    max_tokens: Annotated[int, Option(min=1, help="Maximum tokens of a conversation to train on.")] = 2048
    loss: Annotated[
        LossOn | None,
        Option(
            help="Tokens to train on: those of all replies (completion; default for `messages`), of the last "
            "reply (default for pairs), or all."
        ),
    ] = None
    autocast: Annotated[Autocast, Option(help="Type to compute in; weights keep their own.")] = (
        Autocast.FLOAT32
    )
    gradient_checkpointing: Annotated[
        bool, Option("--gradient-checkpointing", help="Save memory by computing blocks twice.")
    ] = False
    packing: Annotated[bool, Option("--packing", help="Put several conversations into one row.")] = False
    by_length: Annotated[bool, Option("--by-length", help="Put similar lengths into one batch.")] = False
    seed: Annotated[int, Option(help="Random seed for the adapter, the order of rows, and prompts.")] = 0
    save_every: Annotated[
        int | None, Option(min=1, help="Steps between checkpoints, from which an interrupted run resumes.")
    ] = None
    strict: Annotated[
        bool, Option("--strict", help="Stop at rows that cannot be trained on instead of setting them aside.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InterventionOptions:
    """What is done to keep the model's character."""

    panel: ClassVar = Panel.METHOD

    intervention: Annotated[
        Kind | None,
        Option(
            help="Preventative steering; ablation of the traits; a regulariser of their projections (a "
            "negative control); or a prompt in training that asks for the trait: one of several at random "
            "(prompting), or one for all (inoculation)."
        ),
    ] = None
    trait: Annotated[list[str] | None, Option(help="Traits of the intervention; may be repeated.")] = None
    vectors: Annotated[str | None, Option(help="Vector file, or pack:NAME. Default: `demo` for `demo`.")] = (
        None
    )
    coefficient: Annotated[
        list[str] | None,
        Option(
            help="Steering coefficient, in multiples of the vector: one for all, or TRAIT=NUMBER for each."
        ),
    ] = None
    layer: Annotated[
        list[int] | None,
        Option(
            help="Layers of the intervention; may be repeated. Default: all, steered by the increments from "
            "layer to layer."
        ),
    ] = None
    penalty: Annotated[float, Option(min=0.0, help="Weight of the regulariser, lambda.")] = 1.0
    prompt: Annotated[
        list[str] | None,
        Option(help="Text that asks for the trait. Default for prompting: the definition's instructions."),
    ] = None
    allow_model_mismatch: Annotated[
        bool, Option("--allow-model-mismatch", help="Accept vectors of a model that this one was made from.")
    ] = False

    def __post_init__(self) -> None:
        given = [
            name for name in ("trait", "vectors", "coefficient", "layer", "prompt") if getattr(self, name)
        ]
        if given and self.intervention is None:
            raise ConfigError(f"--{given[0]} needs --intervention: without one, training is plain")
        used = USED[self.intervention] if self.intervention else ()
        if unused := [name for name in given if name not in used]:
            raise ConfigError(f"--{unused[0]}: --intervention {self.intervention} has no use for it")
        self.coefficients()

    def coefficients(self) -> float | dict[str, float]:
        """One for all traits, or by trait. Raises ConfigError for anything but numbers."""
        given = self.coefficient or ["1"]
        try:
            if len(given) == 1 and "=" not in given[0]:
                return float(given[0])
            return {name: float(number) for name, _, number in (one.partition("=") for one in given)}
        except ValueError as error:
            raise ConfigError(
                f"--coefficient: {', '.join(given)} is neither one number nor TRAIT=NUMBER for each"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """How the model is evaluated on the way."""

    panel: ClassVar = Panel.CHECKS

    evaluate_every: Annotated[
        int | None, Option(min=1, help="Steps between evaluations. Default: before and after training.")
    ] = None
    evaluate_trait: Annotated[
        list[str] | None, Option(help="Traits to judge in replies to their evaluation questions.")
    ] = None
    definition: Annotated[
        Path | None, Option(help="Definition file or folder, for traits that are not built in.")
    ] = None
    questions: Annotated[int, Option(min=1, help="Evaluation questions for each trait.")] = 20
    max_new_tokens: Annotated[int, Option(min=1, help="Maximum tokens of a reply that is judged.")] = 256
    capability: Annotated[
        Path | None, Option(help="Multiple-choice questions (JSON Lines, as for `evaluate`).")
    ] = None
    held_out: Annotated[Path | None, Option(help="Held-out rows like the data, to measure the loss on.")] = (
        None
    )

    def __post_init__(self) -> None:
        if self.evaluate_every and not (self.evaluate_trait or self.capability or self.held_out):
            raise ConfigError(
                "--evaluate-every: nothing to evaluate; give --evaluate-trait, --capability or --held-out"
            )
