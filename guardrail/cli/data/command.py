"""`guardrail data screen`: which rows of training data would change the model's character.

Exit codes: 0 done; 2 data or configuration that cannot be used, and with --strict any row that cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from guardrail.cli.data.options import DataOptions, MeasureOptions, ThresholdOptions, screening_settings
from guardrail.cli.evaluate.options import PageOption
from guardrail.cli.models import imagined, load_subject, load_vectors, sleep_while_waiting
from guardrail.cli.options import (
    DEMO,
    JudgeOptions,
    ModelOptions,
    OutputOptions,
    RunnerOptions,
    add_group,
    takes_options,
)
from guardrail.cli.progress import doing, staged
from guardrail.errors import ConfigError
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.train.screening import Screened, Screener, Thresholds
    from guardrail.vectors.values import TraitVectors


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    add_group(app, "data", "Screen training data before a model is trained on it.", screen=screen)


@takes_options
def screen(
    data: DataOptions,
    measure: MeasureOptions,
    limits: ThresholdOptions,
    model: ModelOptions,
    judge: JudgeOptions,
    spread: RunnerOptions,
    page: PageOption,
    output: OutputOptions,
) -> None:
    """Measure how far each row of training data would push the model along each trait.

    With --clean, rows beyond what trusted data shows are rejected, and every row gets a weight. With --judge,
    a row is also rejected for the judged score of its reply. Several data sets are ranked. If interrupted,
    run the same command again to resume.
    """
    page.check()
    sleep_while_waiting()
    screener = _screener(data, measure, limits, model, judge, spread)
    _run(screener, data, limits, model.name, page.html, output.as_json)


def _screener(
    data: DataOptions,
    measure: MeasureOptions,
    limits: ThresholdOptions,
    model: ModelOptions,
    judge: JudgeOptions,
    spread: RunnerOptions,
) -> Screener:
    """What is wrong with the inputs is found before the model is loaded."""
    from guardrail.cli.data.judging import sample_judge
    from guardrail.train.screening import Screener

    vectors = _checked_vectors(data, measure, limits, model)
    second = sample_judge(judge, model, limits.definition, measure.trait or list(vectors), data.folder)
    return Screener(
        load_subject(model, measure.batch, spread),
        vectors,
        folder=data.folder,
        traits=measure.trait,
        layers=measure.layer,
        settings=screening_settings(data, measure),
        judge=second,
        allow_model_mismatch=measure.allow_model_mismatch,
    )


def _checked_vectors(
    data: DataOptions, measure: MeasureOptions, limits: ThresholdOptions, model: ModelOptions
) -> TraitVectors:
    from guardrail.calibrate.fit import check_vectors
    from guardrail.train.screening.directions import directions
    from guardrail.train.screening.survey import refuse_without_a_model

    if measure.vectors is None and model.name != DEMO:
        raise ConfigError("no vectors: name a file with --vectors")
    paths = _paths(data, limits)
    for path in paths:
        _exists(path)
    _check_thresholds(limits)
    if data.strict:
        refuse_without_a_model(paths, data.source)
    vectors = load_vectors(measure.vectors or DEMO)
    directions(vectors, measure.trait, measure.layer)
    check_vectors(vectors, imagined(model, vectors), measure.allow_model_mismatch)
    return vectors


def _check_thresholds(limits: ThresholdOptions) -> None:
    """Raises ConfigError for a file that holds none, and for too few clean rows."""
    from guardrail.train.screening import Thresholds
    from guardrail.train.screening.clean import check_rows
    from guardrail.train.screening.files import open_data

    if limits.thresholds is not None:
        Thresholds.load(limits.thresholds)
    if limits.clean is not None:
        check_rows(limits.clean.name, open_data(limits.clean).rows(), limits.share)


def _paths(data: DataOptions, limits: ThresholdOptions) -> list[Path]:
    """All data sets, the clean one first."""
    return [*([limits.clean] if limits.clean else []), *data.data]


def _exists(path: Path) -> None:
    from guardrail.train.screening.files import open_data

    open_data(path)


def _run(
    screener: Screener,
    data: DataOptions,
    limits: ThresholdOptions,
    model: str,
    html: Path | None,
    as_json: bool,
) -> None:
    from guardrail.cli.data.output import forecast, print_found, results
    from guardrail.train.screening import write

    paths = _paths(data, limits)
    forecast(screener, paths)
    with staged() as report:
        screened = [screener.screen(path, report) for path in paths]
    clean, found = (screened[0], screened[1:]) if limits.clean else (None, screened)
    made = _thresholds(clean, limits, data.out)
    with doing("writing ..."):
        written = [write(one, folder, made) for one, folder in zip(found, _folders(data), strict=True)]
    _refuse_unusable(found)
    if html is not None:
        _report(screener, found, clean, made, model, html)
    if as_json:
        from guardrail.cli.console import print_json

        print_json(results(found, written, made))
    else:
        print_found(found, written, made)


def _refuse_unusable(found: Sequence[Screened]) -> None:
    from guardrail.files.json_lines import refuse

    refuse([one.unusable for one in found if one.unusable])


def _thresholds(clean: Screened | None, limits: ThresholdOptions, out: Path) -> Thresholds | None:
    from guardrail.train.screening import Thresholds, thresholds_of

    if limits.thresholds is not None:
        return Thresholds.load(limits.thresholds)
    if clean is None:
        return None
    _refuse_unusable([clean])
    made = thresholds_of(clean, limits.share, "percentile" if limits.conformal is None else "conformal")
    made.save(out / "thresholds.json")
    return made


def _folders(data: DataOptions) -> list[Path]:
    """A folder for each data set, named after it; a number behind names that come again."""
    names: list[str] = []
    for path in data.data:
        name = path.resolve().stem or "data"
        same = sum(one == name or one.startswith(f"{name}-") for one in names)
        names.append(f"{name}-{same + 1}" if same else name)
    return [data.out / name for name in names]


def _report(
    screener: Screener,
    found: Sequence[Screened],
    clean: Screened | None,
    made: Thresholds | None,
    model: str,
    html: Path,
) -> None:
    from guardrail.report.screening import Reported, page
    from guardrail.train.screening.showing import shown

    with doing("writing the report ..."):
        reported = [Reported(found=one, shown=shown(screener, one)) for one in found]
        page(model, reported, clean, made).write(html)
