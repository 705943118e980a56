"""`guardrail interpret lens`: what a model would say after each layer, and how early it settles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from guardrail.cli.console import print_json
from guardrail.cli.interpret.asking import Forms
from guardrail.cli.interpret.lens_output import print_lens
from guardrail.cli.interpret.reporting import ReportOptions, WorkOption
from guardrail.cli.models import sleep_while_waiting
from guardrail.cli.options import ModelOptions, OutputOptions, takes_options
from guardrail.cli.places import check_file
from guardrail.cli.progress import staged
from guardrail.cli.train.models import load_finetune, named

if TYPE_CHECKING:
    from guardrail.extract.journal import Report
    from guardrail.extract.subject import Subject
    from guardrail.interpret.lens.picture import Picture
    from guardrail.interpret.lens.results import LensResult
    from guardrail.interpret.lens.study import LensStudy
    from guardrail.interpret.lens.tasks import Item
    from guardrail.interpret.lens.tuned import TunedLens


@dataclass(frozen=True, slots=True, kw_only=True)
class LensOptions:
    """Items, models and lenses."""

    task: Annotated[
        list[str] | None,
        Option(help="Shipped task: cloze, comparison or common-sense. Repeat for several. Default: all."),
    ] = None
    data: Annotated[
        list[Path] | None,
        Option(help='Your own items (JSON Lines): {"persona", "prompt", "answers", "alone"}.'),
    ] = None
    also: Annotated[
        list[str] | None,
        Option(
            help="Model, adapter or checkpoint to compare with --model. The folder of a training run stands "
            "for its checkpoints. Repeat for several."
        ),
    ] = None
    form: Annotated[
        Forms,
        Option(
            help="text: persona and prompt are a text to continue. chat: they are system and user message. "
            "auto: text for a model without a chat template (or with builtin:plain), else chat."
        ),
    ] = Forms.TEXT
    tuned_lens: Annotated[
        Path | None,
        Option(
            help="Tuned lens of --model (safetensors), for a second reading. If the file does not exist, a "
            "lens is trained on text that the model writes, and saved there."
        ),
    ] = None

    def tasks(self) -> dict[str, list[Item]]:
        """Items by task. Raises ConfigError for unknown tasks and bad files."""
        from guardrail.interpret.lens.tasks import TASKS, read, shipped

        names = self.task or (() if self.data else TASKS)
        return {name: shipped(name) for name in names} | {path.stem: read(path) for path in self.data or ()}

    def lens(self) -> TunedLens | None:
        """The lens that exists. Raises ConfigError for a file that holds none, or cannot be written."""
        if self.tuned_lens is None or not self.tuned_lens.exists():
            check_file(self.tuned_lens)
            return None
        sleep_while_waiting()
        from guardrail.interpret.lens.tuned import TunedLens

        return TunedLens.load(self.tuned_lens)


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureOption:
    """The picture of layers by tokens."""

    prompt: Annotated[
        str | None,
        Option(help="Text for the picture of layers by tokens. Default: the first item with its persona."),
    ] = None


@takes_options
def lens(
    options: LensOptions,
    picture: PictureOption,
    model: ModelOptions,
    reports: ReportOptions,
    kept: WorkOption,
    output: OutputOptions,
) -> None:
    """Read what a model would say after each of its layers, with and without a persona.

    The score S says how early and how surely the answer stands. Compare it with and without the persona, and
    against the persona of another item.
    """
    reports.check()
    kept.check()
    tasks, others, tuned = options.tasks(), named(options.also or ()), options.lens()
    text = picture.prompt or _first(tasks)
    found: list[LensResult] = []
    shown: list[Picture] = []
    with staged() as report:
        for study in _studies(options, model, others, tuned, report, kept.work):
            shown.append(_picture(study, text))
            for task, items in tasks.items():
                found += study.run(task, items)
    _publish(found, shown, reports, output.as_json)


def _first(tasks: dict[str, list[Item]]) -> str:
    item = next(iter(tasks.values()))[0]
    return f"{item.persona} {item.prompt}"


def _studies(
    options: LensOptions,
    model: ModelOptions,
    others: list[str],
    tuned: TunedLens | None,
    report: Report,
    work: Path | None,
) -> Iterator[LensStudy]:
    """The model, then those beside it, one in memory at a time."""
    from guardrail.interpret.lens.study import LensStudy

    subject, form = options.form.load(model), options.form
    ancestor = None
    if others:
        from guardrail.train.shift.descent import Ancestor

        ancestor = Ancestor.of(subject, model.name)
    if tuned is None and options.tuned_lens is not None:
        tuned = _trained(options.tuned_lens, subject, report)
    yield LensStudy(subject, model.name, form.of(subject), tuned, report, work)
    del subject
    for name in others:
        assert ancestor is not None
        other = load_finetune(name, model, ancestor, untemplated=form.untemplated)
        yield LensStudy(other, name, form.of(other), None, report, work)


def _trained(path: Path, subject: Subject, report: Report) -> TunedLens:
    """A new lens, which is written to the file."""
    from guardrail.interpret.lens.training import train
    from guardrail.interpret.lens.unembedding import Unembedding

    found = train(subject, Unembedding(subject.local), report=report)
    found.save(path)
    return found


def _picture(study: LensStudy, text: str) -> Picture:
    from guardrail.interpret.lens.picture import look

    return look(study.subject, study.unembedding, text, study.name)


def _publish(found: list[LensResult], shown: list[Picture], reports: ReportOptions, as_json: bool) -> None:
    from guardrail.report.lens import figures, page

    written = reports.write(lambda: page(found, shown), lambda: figures(found, shown))
    if as_json:
        print_json({"results": [one.as_json() for one in found], "pictures": [asdict(one) for one in shown]})
        return
    print_lens(found)
    for path in written:
        typer.echo(f"\n{path}: written")
