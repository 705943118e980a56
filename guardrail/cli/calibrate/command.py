"""`guardrail calibrate`: benign statistics and thresholds; `guardrail calibrate drift`: do they still hold?

Exit codes: 0 done, 1 live scores have drifted, 2 a usage or configuration error.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from guardrail.cli.calibrate.benign import BenignFile, check_files, read_files, read_sample
from guardrail.cli.calibrate.contrasting import ReportOptions
from guardrail.cli.calibrate.options import RateOptions, ResultOptions, SampleOptions
from guardrail.cli.calibrate.output import print_calibrated, print_calibrated_json, print_drift
from guardrail.cli.console import print_json
from guardrail.cli.models import imagined, load_subject, only_transformers, vectors_of
from guardrail.cli.options import DEMO, ModelOptions, OutputOptions, PoliciesOption, settings, takes_options
from guardrail.cli.progress import counted
from guardrail.errors import CalibrationError, ConfigError, GuardrailError
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.calibrate.drift import DriftReport
    from guardrail.calibrate.fit import Calibrated, Options
    from guardrail.calibrate.policy_edit import PolicyEdit
    from guardrail.calibrate.policy_file import PolicyFile
    from guardrail.calibrate.sample import Sample
    from guardrail.calibration.values import Calibration
    from guardrail.extract.subject import Subject
    from guardrail.types import Position
    from guardrail.vectors.values import TraitVectors


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer()
    group.callback(invoke_without_command=True)(calibrate)
    group.command("drift")(drift)
    app.add_typer(group, name="calibrate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The files that the command was given, read and checked without a model."""

    policies: PolicyFile | None
    vectors: TraitVectors
    target: Path | None
    """The policy file to change."""


@takes_options
def calibrate(
    context: typer.Context,
    sample: SampleOptions,
    model: ModelOptions,
    policies: PoliciesOption,
    rates: RateOptions,
    result: ResultOptions,
    report: ReportOptions,
    output: OutputOptions,
) -> None:
    """Calibrate thresholds to a known false-positive rate on your own benign prompts."""
    if context.invoked_subcommand is not None:
        return
    if sample.benign is None:
        raise ConfigError("no benign prompts: name a file with --benign")
    only_transformers(model)
    result.check_out()
    report.check()
    given = inputs(model.name, rates.vectors, policies.policies, result)
    files, labelled = read_files(sample), report.read(given.vectors)
    check_files(files, sample, rates, given.policies)
    _check_vectors(given, model, rates)
    subject = load_subject(model)
    shown = report.contrast(labelled, sample.system, subject, given.vectors, given.policies)
    made, edit = _calibrated(subject, given, files, sample, rates, result)
    made.calibration.save(result.out)
    if edit is not None and result.write:
        edit.write()
    report.publish(made, shown)
    found = shown.fired(made.triggers) if shown else ()
    (print_calibrated_json if output.as_json else print_calibrated)(made, found, edit, rates, result)
    report.tell(output.as_json)


def inputs(model: str, vectors: str | None, policies: Path | None, result: ResultOptions) -> Inputs:
    """Read the policy file and find the vectors, before a model is loaded."""
    from guardrail.calibrate.policy_file import PolicyFile
    from guardrail.plugins.manager import Plugins

    if policies and result.apply and policies.resolve() != result.apply.resolve():
        raise ConfigError("--policies and --apply name different files; calibrate them one by one")
    path = result.apply or policies
    file = PolicyFile.read(path, Plugins.from_environment()) if path else None
    found = vectors_of(model, vectors, file)
    return Inputs(policies=file, vectors=found, target=result.apply)


def _check_vectors(given: Inputs, model: ModelOptions, rates: RateOptions) -> None:
    """Raises VectorError for vectors of another model, as far as that is known before it is loaded."""
    theirs = imagined(model, given.vectors)
    # only now, because it imports torch, which `imagined` prepares for
    from guardrail.calibrate.fit import check_vectors

    check_vectors(given.vectors, theirs, _mismatch_allowed(given, rates))


def _mismatch_allowed(given: Inputs, rates: RateOptions) -> bool:
    allowed = given.policies is not None and given.policies.policies.allow_model_mismatch
    return rates.allow_model_mismatch or allowed


def _calibrated(
    subject: Subject,
    given: Inputs,
    files: Mapping[str | None, BenignFile],
    sample: SampleOptions,
    rates: RateOptions,
    result: ResultOptions,
) -> tuple[Calibrated, PolicyEdit | None]:
    # only now, because it imports torch, which `loading` prepares for
    from guardrail.calibrate.fit import conclude, measure

    split = read_sample(files, sample, subject, _positions(given, subject))
    _warn_about_seen(given.vectors, split)
    options = _options(given, sample, rates)
    total = sum(len(one.prompts) for one in (split, *split.slices.values()))
    total += min(sample.conversations, len(split.calibration))
    with counted("reading prompts", total) as advance:
        measured = measure(subject, given.vectors, split, options, given.policies, advance)
    with _saved_on_failure(measured.calibration, result.out):
        made = conclude(measured, given.vectors, options, given.policies)
        edit = _edit(given, made, result.out if result.set_calibration else None)
    if given.policies and edit and edit.changes and not result.set_calibration:
        _warn_about_calibration(given.policies, result.out)
    return made, edit


def _warn_about_seen(vectors: TraitVectors, sample: Sample) -> None:
    """A probe knows the prompts that it was fitted on, so its thresholds come out too low on them."""
    from guardrail.calibrate.seen import seen

    if found := seen(vectors, sample.prompts):
        print(
            f"warning: the vectors were fitted on {len(found)} of the {len(sample.prompts)} prompts, such as "
            f"{found[0]}; thresholds will be too low. Take prompts that the fit has not seen (`vectors fit "
            "--benign-out` sets some aside)",
            file=sys.stderr,
        )


def _positions(given: Inputs, subject: Subject) -> list[Position]:
    from guardrail.calibrate.projections import positions, probes

    others = given.policies.probes(subject.fingerprint) if given.policies else None
    return positions(probes(given.vectors, others).values())


def _options(given: Inputs, sample: SampleOptions, rates: RateOptions) -> Options:
    from guardrail.calibrate.fit import Options

    assert sample.benign is not None
    return settings(
        Options,
        sample,
        rates,
        population=sample.population or f"{sample.benign.name}, benign prompts as given",
        allow_model_mismatch=_mismatch_allowed(given, rates),
    )


@contextmanager
def _saved_on_failure(calibration: Calibration, out: Path) -> Generator[None]:
    """Reading the prompts takes long, and is not lost if only the thresholds cannot be found."""
    try:
        yield
    except GuardrailError:
        calibration.save(out)
        print(f"{out}: written; only the thresholds of the policies are missing", file=sys.stderr)
        raise


def _edit(given: Inputs, made: Calibrated, calibration: Path | None) -> PolicyEdit | None:
    from guardrail.calibrate.policy_edit import edit

    return edit(given.target, made.thresholds, calibration) if given.target else None


def _warn_about_calibration(file: PolicyFile, out: Path) -> None:
    """Thresholds that were found with one calibration mean something else under another."""
    from guardrail.policy.loading import resolve_calibration

    name, path = file.policies.calibration, file.document.path
    if name is None or resolve_calibration(name, path and path.parent).resolve() != out.resolve():
        print(
            f"warning: {path} names {name or 'no calibration'}, but these thresholds are for {out}; "
            "--set-calibration changes that",
            file=sys.stderr,
        )


def _record(report: DriftReport, calibration: Calibration, path: Path) -> None:
    """Raises CalibrationError if no trait has enough scores to tell how far they are from the calibration."""
    from guardrail.calibrate.drift import MIN_SCORES

    if report.distance is None:
        raise CalibrationError(f"--record: no trait has {MIN_SCORES} live scores, so nothing was written")
    calibration.drifted(report.distance).save(path)


@takes_options
def drift(
    audit: Annotated[Path, Option(help="Audit log: JSON Lines or SQLite.")],
    calibration: Annotated[str, Option(help="Calibration file, or `demo`.")] = DEMO,
    harmful_share: Annotated[float, Option(help="Share of the live traffic that may be harmful.")] = 0.0,
    record: Annotated[
        bool, Option("--record", help="Write the drift into the calibration's certificates.")
    ] = False,
    *,
    output: OutputOptions,
) -> None:
    """Compare the live scores of an audit log with the calibration that was in force.

    The exit code is 1 if they have drifted.
    """
    from guardrail.audit import read
    from guardrail.calibrate.drift import drift
    from guardrail.calibration.values import Calibration
    from guardrail.policy.loading import resolve_calibration

    path = resolve_calibration(calibration, Path())
    loaded = Calibration.load(path)
    if record and not loaded.certificates:
        raise ConfigError(
            f"--record: {path} has no certificate to write to; make one with `guardrail certify`"
        )
    report = drift(read(audit), loaded, harmful_share)
    if record:
        _record(report, loaded, path)
    if output.as_json:
        print_json(asdict(report) | {"drifted": report.drifted})
    else:
        print_drift(report)
    if report.drifted:
        raise typer.Exit(1)
