"""`guardrail train finetune`: LoRA or full finetuning, with an intervention and evaluations on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import note, print_json, print_wide
from guardrail.cli.models import sleep_while_waiting
from guardrail.cli.options import JudgeOptions, ModelOptions, OutputOptions, takes_options
from guardrail.cli.progress import staged
from guardrail.cli.train.finetune_inputs import (
    Opened,
    check_files,
    definitions_of,
    evaluator_of,
    judge_of,
    on_the_data,
    on_the_model,
    open_model,
    read_rows,
    settings_of,
    vectors_of,
)
from guardrail.cli.train.finetune_options import InterventionOptions, TrainingOptions, WatchOptions

if TYPE_CHECKING:
    from guardrail.extract.journal import Report
    from guardrail.plugins.protocols import Judge
    from guardrail.statistics.intervals import Estimate
    from guardrail.train.finetuning.data import TrainingData
    from guardrail.train.finetuning.evaluation import Evaluator
    from guardrail.train.finetuning.results import Evaluation, Finetuned, FinetuneFile
    from guardrail.train.finetuning.settings import FinetuneSettings
    from guardrail.train.intervention import Applied, Intervention
    from guardrail.vectors.values import TraitVectors

REPORT, ASIDE = "finetune.json", "set-aside.jsonl"
NEEDED = ("accelerate", "datasets", "peft", "trl")


@takes_options
def finetune(
    model: ModelOptions,
    training: TrainingOptions,
    against: InterventionOptions,
    watch: WatchOptions,
    judge: JudgeOptions,
    output: OutputOptions,
) -> None:
    """Finetune a model, with an intervention that keeps its character, and record what was done.

    If interrupted, run the same command again: it resumes from the last checkpoint and ends with the weights
    of an uninterrupted run.
    """
    from guardrail.train.screening.files import check_installed

    for package in NEEDED:
        check_installed(package)
    job = Job.of(model, training, against, watch, judge)
    _say_aside(job.data, training.out)
    with staged() as report:
        said = job.written(job.run(report))
    print_json(said) if output.as_json else _print(said, training.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that a run needs, checked."""

    training: TrainingOptions
    opened: Opened
    data: TrainingData
    settings: FinetuneSettings
    vectors: TraitVectors | None
    intervention: Intervention | None
    judge: Judge | None
    evaluate: Evaluator | None

    @classmethod
    def of(
        cls,
        model: ModelOptions,
        training: TrainingOptions,
        against: InterventionOptions,
        watch: WatchOptions,
        judge: JudgeOptions,
    ) -> Job:
        """Raises ConfigError for what cannot be done, most of it before the model is loaded."""
        sleep_while_waiting()
        check_files(training, watch)
        vectors, definitions = vectors_of(model, against), definitions_of(watch, model.name)
        prompting = on_the_data(against, model.name, watch.definition)
        settings = settings_of(training, watch)
        scoring = judge_of(judge, model, definitions, training.out)
        opened = open_model(model, training)
        data = read_rows(training.data, opened, strict=training.strict, folder=training.out)
        settings = settings if training.loss else replace(settings, loss=data.loss)
        return cls(
            training=training,
            opened=opened,
            data=data,
            settings=settings,
            vectors=vectors,
            intervention=prompting or on_the_model(against, opened, vectors),
            judge=scoring,
            evaluate=evaluator_of(watch, opened, settings, scoring, definitions),
        )

    def run(self, report: Report) -> Finetuned:
        """Train. Raises SteeringError, JudgeError, ExtractionError if the folder holds another run."""
        from guardrail.train.finetuning.run import finetune

        return finetune(
            self.opened.model,
            self.opened.tokenizer,
            self.data.conversations,
            self.settings,
            self.intervention,
            folder=self.training.out,
            evaluate=self.evaluate,
            chat_template=self.opened.options.chat_template,
            report=report,
        )

    def written(self, found: Finetuned) -> FinetuneFile:
        """Save the model and what was done."""
        from guardrail.train.finetuning.checkpoints import write_json
        from guardrail.train.finetuning.results import FinetuneFile
        from guardrail.train.finetuning.trainer import saved_in_private

        said = FinetuneFile(
            model=self.opened.options.name,
            fingerprint=self.opened.fingerprint,
            data=str(self.training.data),
            data_sha256=self.data.sha256,
            aside=self.data.counts,
            vectors_sha256=self.vectors.sha256 if self.vectors else None,
            judge=self.judge.name if self.judge else None,
            report=found.report,
        )
        with saved_in_private():
            found.model.save_pretrained(self.training.out)
        self.opened.tokenizer.save_pretrained(self.training.out)
        write_json(self.training.out / REPORT, asdict(said))
        return said


def _say_aside(data: TrainingData, out: Path) -> None:
    for kind, count in data.counts.items():
        first = next(one for one in data.aside if one.kind == kind)
        note(
            f"{count} row{'s' * (count > 1)} set aside, {kind}: the first is row {first.row}, {first.reason}"
        )
    if data.aside:
        note(f"{out / ASIDE}: the rows that are not trained on; {len(data.conversations)} are")


def _print(said: FinetuneFile, out: Path) -> None:
    report = said.report
    losses = f"loss {report.losses[0]:.3g} to {report.losses[-1]:.3g}" if report.losses else "no step"
    typer.echo(
        f"{report.conversations} conversations, {report.trained_tokens} of {report.tokens} tokens trained; "
        f"{report.steps} steps, {losses}; {report.parameters} parameters"
    )
    if report.intervention is not None:
        typer.echo(_applied(report.intervention))
    if report.evaluations:
        rows = [_row(one, list(report.evaluations[0].traits)) for one in report.evaluations]
        traits = list(report.evaluations[0].traits)
        print_wide(["step", *traits, "coherence", "capability", "held-out loss"], rows)
    typer.echo(f"{out}: the model; {out / REPORT}: what was done")


def _applied(done: Applied) -> str:
    first, last = (*done.layers, 0)[0], (0, *done.layers)[-1]
    if not first:
        return f"{done.kind}: {done.rows} conversations were changed"
    again = f", and {done.recomputed} blocks again for checkpointing" if done.recomputed else ""
    where = f"layer {first}" if first == last else f"layers {first} to {last}"
    traits = ", ".join(done.traits)
    return f"{done.kind} of {traits} at {where}: {done.passes} forward passes{again}"


def _row(one: Evaluation, traits: Sequence[str]) -> list[object]:
    cells = [one.traits[trait] for trait in traits]
    return [one.step, *(_cell(e) for e in (*cells, one.coherence, one.capability, one.held_out_loss))]


def _cell(found: Estimate | None) -> str | None:
    return None if found is None else f"{found.value:.3g} ({found.low:.3g} to {found.high:.3g})"
