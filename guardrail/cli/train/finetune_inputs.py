"""From the options of `guardrail train finetune` to a model, an intervention, settings and an evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardrail.cli.definitions import definition_of
from guardrail.cli.judges import checked, chosen
from guardrail.cli.models import imagined, load, load_vectors, loading, only_transformers
from guardrail.cli.options import DEMO, Dtype, JudgeOptions, ModelOptions, settings
from guardrail.cli.placement import device_of
from guardrail.cli.train.finetune_options import (
    VECTORS,
    InterventionOptions,
    Kind,
    TrainingOptions,
    WatchOptions,
)
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.engines.transformers.rendering import Renderer
    from guardrail.plugins.protocols import Judge
    from guardrail.train.finetuning.data import TrainingData
    from guardrail.train.finetuning.evaluation import Evaluator
    from guardrail.train.finetuning.settings import FinetuneSettings
    from guardrail.train.intervention import Intervention
    from guardrail.traits import TraitDefinition
    from guardrail.types import Fingerprint
    from guardrail.vectors.values import TraitVector, TraitVectors

CACHE = "judge-cache.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The model that is trained, before that."""

    options: ModelOptions
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    renderer: Renderer = field(repr=False)
    fingerprint: Fingerprint
    longest: int


def open_model(options: ModelOptions, training: TrainingOptions) -> Opened:
    """Load what is trained: in float32 if all weights are, or on a CPU. Raises ConfigError."""
    only_transformers(options)
    with loading(options):
        from guardrail.engines.transformers.model import LocalModel
        from guardrail.train.finetuning.run import longest_of

        whole = training.full or device_of(options.device) == "cpu"
        model, tokenizer = load(options, Dtype.FLOAT32 if whole else Dtype.AUTO)
        local = LocalModel(model, tokenizer, options.chat_template)
    return Opened(
        options=options,
        model=model,
        tokenizer=tokenizer,
        renderer=local.renderer,
        fingerprint=local.fingerprint,
        longest=min(longest_of(model), training.max_tokens),
    )


def vectors_of(options: ModelOptions, against: InterventionOptions) -> TraitVectors | None:
    """The vectors that the intervention needs, None for none. Raises ConfigError for unknown traits."""
    if against.intervention not in VECTORS:
        return None
    if against.vectors is None and options.name != DEMO:
        raise ConfigError(f"--intervention {against.intervention} needs --vectors of this model")
    found = load_vectors(against.vectors or DEMO)
    if not against.trait:
        raise ConfigError(f"--intervention {against.intervention} needs --trait, one or several")
    found.require(against.trait)
    _check_layers(against, [found[name] for name in against.trait])
    _check_model(found, imagined(options, found), against)
    return found


def _check_layers(against: InterventionOptions, vectors: Sequence[TraitVector]) -> None:
    """Raises VectorError for layers and coefficients that these vectors do not have."""
    from guardrail.train.steering import by_trait, several, usable_layers

    usable_layers(several(vectors), against.layer)
    by_trait(against.coefficients(), vectors)


def _check_model(vectors: TraitVectors, fingerprint: Fingerprint, against: InterventionOptions) -> None:
    from guardrail.calibrate.fit import check_vectors

    check_vectors(vectors, fingerprint, against.allow_model_mismatch)


def on_the_data(against: InterventionOptions, model: str, definition: Path | None) -> Intervention | None:
    """The intervention, if it needs no model; None for others. Raises ConfigError, TraitError."""
    if against.intervention is Kind.PROMPTING:
        return _prompting(against, model, definition)
    if against.intervention is Kind.INOCULATION:
        from guardrail.train.prompting import InoculationPrompting

        if len(against.prompt or ()) != 1:
            raise ConfigError("--intervention inoculation needs --prompt, exactly one")
        return InoculationPrompting((against.prompt or [""])[0], ", ".join(against.trait or ()))
    return None


def on_the_model(
    against: InterventionOptions, opened: Opened, vectors: TraitVectors | None
) -> Intervention | None:
    """The intervention, if it needs vectors; None for others. Raises VectorError."""
    if vectors is None:
        return None
    _check_model(vectors, opened.fingerprint, against)
    return _on_the_model(against, opened.model, [vectors[name] for name in against.trait or ()])


def _on_the_model(against: InterventionOptions, model: Any, vectors: Sequence[TraitVector]) -> Intervention:
    from guardrail.train.ablation import ConceptAblation
    from guardrail.train.regularisation import ProjectionRegulariser
    from guardrail.train.steering import PreventativeSteering

    if against.intervention is Kind.ABLATION:
        return ConceptAblation(model, vectors, against.layer)
    if against.intervention is Kind.REGULARISER:
        return ProjectionRegulariser(model, vectors, against.penalty, against.layer)
    return PreventativeSteering(model, vectors, against.coefficients(), against.layer or "incremental")


def _prompting(against: InterventionOptions, model: str, definition: Path | None) -> Intervention:
    from guardrail.train.prompting import PreventativePrompting

    if against.prompt:
        return PreventativePrompting(against.prompt, ", ".join(against.trait or ()))
    if len(against.trait or ()) != 1:
        raise ConfigError("--intervention prompting needs --trait, exactly one, or --prompt")
    return PreventativePrompting.of(definition_of((against.trait or [""])[0], definition, model))


def check_files(training: TrainingOptions, watch: WatchOptions) -> None:
    """Look at the files of rows before a model is loaded. Raises ConfigError for what cannot be opened."""
    from guardrail.evaluation.capability import read_questions
    from guardrail.train.screening.files import open_data

    open_data(training.data)
    if watch.held_out:
        open_data(watch.held_out)
    if watch.capability:
        read_questions(watch.capability)


def read_rows(path: Path, opened: Opened, *, strict: bool, folder: Path | None = None) -> TrainingData:
    """The rows of a file that can be trained on; the others go to a file in `folder`. Raises ConfigError."""
    from guardrail.train.finetuning.data import read_data

    return read_data(path, opened.renderer, opened.longest, strict=strict, folder=folder)


def settings_of(training: TrainingOptions, watch: WatchOptions) -> FinetuneSettings:
    """How to train, but for a loss that the data chooses. Raises ConfigError for what makes no sense."""
    from guardrail.train.finetuning.settings import FinetuneSettings, Lora

    return settings(
        FinetuneSettings,
        training,
        watch,
        lora=None if training.full else Lora(rank=training.lora_rank, alpha=training.lora_alpha),
        **({"loss": training.loss.value} if training.loss else {}),
        precision=training.autocast.value,
        schedule=training.schedule.value,
    )


def definitions_of(watch: WatchOptions, model: str) -> list[TraitDefinition]:
    """The definitions of the traits to evaluate. Raises TraitError."""
    return [
        definition_of(name, watch.definition, model) for name in dict.fromkeys(watch.evaluate_trait or ())
    ]


def judge_of(
    options: JudgeOptions, model: ModelOptions, definitions: Sequence[TraitDefinition], folder: Path
) -> Judge | None:
    """The judge, if there is something to judge; checked. Raises ConfigError, UselessJudge."""
    if not definitions:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    found = chosen(options, model, folder / CACHE)
    checked(found, definitions)
    return found


def evaluator_of(
    watch: WatchOptions,
    opened: Opened,
    wanted: FinetuneSettings,
    judge: Judge | None,
    definitions: Sequence[TraitDefinition],
) -> Evaluator | None:
    """What is evaluated on the way; None for nothing. Raises ConfigError."""
    from guardrail.evaluation.capability import read_questions
    from guardrail.train.finetuning.evaluation import Evaluator
    from guardrail.train.finetuning.run import encode_all

    choices = tuple(read_questions(watch.capability)) if watch.capability else ()
    held_out = read_rows(watch.held_out, opened, strict=True).conversations if watch.held_out else ()
    if not (definitions or choices or held_out):
        return None
    return Evaluator(
        tokenizer=opened.tokenizer,
        judge=judge,
        definitions=definitions,
        questions=watch.questions,
        max_new_tokens=watch.max_new_tokens,
        choices=choices,
        held_out=encode_all(opened.renderer, held_out, wanted, opened.longest) if held_out else (),
        chat_template=opened.options.chat_template,
    )
