"""`guardrail calibrate`: benign statistics and thresholds; `guardrail calibrate drift`: do they still hold?

Exit codes: 0 done, 1 live scores have drifted, 2 a usage or configuration error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.cli.calibrate.output import Shown, print_calibrated, print_calibrated_json, print_drift
from guardrail.cli.console import (
    JsonFlag,
    ModelName,
    PoliciesFile,
    errors,
    print_json,
)
from guardrail.errors import CalibrationError, ConfigError, GuardrailError

if TYPE_CHECKING:
    from guardrail.calibrate.fit import Calibrated
    from guardrail.calibrate.policy_edit import PolicyEdit
    from guardrail.calibrate.policy_file import PolicyFile
    from guardrail.calibrate.sample import Sample
    from guardrail.extract.subject import Subject

SHOWN_PROBLEMS = 20


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer()
    group.callback(invoke_without_command=True)(calibrate)
    group.command("drift")(drift)
    app.add_typer(group, name="calibrate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the command was given, read and checked as far as no model is needed."""

    policies: PolicyFile | None
    vectors: Path
    target: Path | None
    """The policy file to change."""


def calibrate(
    context: typer.Context,
    benign: Annotated[
        Path | None,
        typer.Option("--benign", help="Benign prompts: JSON Lines as `check --input`, .txt lines, or .csv."),
    ] = None,
    model: ModelName = "demo",
    vectors: Annotated[
        str | None, typer.Option("--vectors", help="A vector file, or `demo`; else the policies' own.")
    ] = None,
    fpr: Annotated[float, typer.Option("--fpr", help="The false-positive rate to aim at.")] = 0.01,
    policies: PoliciesFile = None,
    set_fpr: Annotated[
        float | None, typer.Option("--set-fpr", help="A rate for all enforced policies together.")
    ] = None,
    held_out: Annotated[
        float, typer.Option("--held-out", help="The share of prompts to measure the achieved rate on.")
    ] = 0.2,
    apply: Annotated[
        Path | None, typer.Option("--apply", help="Show what would change in this policy file.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="With --apply: change the file.")] = False,
    set_calibration: Annotated[
        bool, typer.Option("--set-calibration", help="With --apply: let `calibration:` name --out.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="Where the calibration goes.")] = Path(
        "calibration.json"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace the calibration at --out.")] = False,
    population: Annotated[
        str | None, typer.Option("--population", help="What the prompts are, in words; kept in the file.")
    ] = None,
    conversations: Annotated[
        int,
        typer.Option("--conversations", min=0, help="Prompts that the model answers, for `cap` and replies."),
    ] = 256,
    width: Annotated[
        float | None, typer.Option("--width", help="Say how many prompts a 95 % interval this wide needs.")
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave out prompts that cannot be read.")
    ] = False,
    chat_template: Annotated[
        str | None,
        typer.Option("--chat-template", help="In place of the tokenizer's: `builtin:plain` or a file."),
    ] = None,
    allow_model_mismatch: Annotated[
        bool, typer.Option("--allow-model-mismatch", help="The model is a finetune of the vectors' model.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the split and of the replies.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Calibrate on your own benign prompts: thresholds with a known false-positive rate."""
    if context.invoked_subcommand is not None:
        return
    if benign is None:
        raise ConfigError("no benign prompts: name a file with --benign")
    check_options(fpr, set_fpr, width, apply, write, set_calibration)
    check_out(out, force)
    given = inputs(model, vectors, policies, apply)
    with console_quiet(model):
        from guardrail.calibrate.fit import Options, conclude, measure
        from guardrail.extract.subject import Subject
        from guardrail.vectors.values import TraitVectors

        loaded = TraitVectors.load(given.vectors)
        subject = Subject.load(model, chat_template=chat_template)
    sample, skipped = read_sample(benign, subject, held_out, seed, skip_invalid)
    allowed = given.policies is not None and given.policies.policies.allow_model_mismatch
    options = Options(
        population=population or f"{benign.name}, benign prompts as given",
        fpr=fpr,
        set_fpr=set_fpr,
        conversations=conversations,
        skipped=skipped,
        allow_model_mismatch=allow_model_mismatch or allowed,
    )
    total = len(sample.calibration) + len(sample.held_out) + min(conversations, len(sample.calibration))
    with _progress(total) as advance:
        measured = measure(subject, loaded, sample, options, given.policies, advance)
    try:
        made = conclude(measured, loaded, options, given.policies)
        edit = _edit(given, made, out if set_calibration else None)
    except GuardrailError:
        measured.calibration.save(out)
        print(f"{out}: written; only the thresholds of the policies are missing", file=sys.stderr)
        raise
    if given.policies and edit and edit.changes and not set_calibration:
        warn_about_calibration(given.policies, out)
    made.calibration.save(out)
    if edit is not None and write:
        edit.write()
    shown = Shown(fpr=fpr, set_fpr=set_fpr, width=width, out=out, written=write)
    (print_calibrated_json if as_json else print_calibrated)(made, edit, shown)


def check_options(
    fpr: float,
    set_fpr: float | None,
    width: float | None,
    apply: Path | None,
    write: bool,
    set_calibration: bool,
) -> None:
    """Raises ConfigError for numbers that are no rates and flags that need another."""
    for name, value in (("--fpr", fpr), ("--set-fpr", set_fpr), ("--width", width)):
        if value is not None and not 0 < value < 1:
            raise ConfigError(f"{name} is between 0 and 1, not {value}")
    if apply is None and (write or set_calibration):
        raise ConfigError("--write and --set-calibration need --apply FILE")


def check_out(out: Path, force: bool) -> None:
    """Raises ConfigError where the result would replace a file: a policy may be using that calibration."""
    from guardrail.calibration.values import Calibration

    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{out}: there is no such folder")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another --out, or replace it with --force")
    if out.exists():
        try:
            Calibration.load(out)
        except CalibrationError as error:
            raise ConfigError(f"{out} is no calibration; choose another --out") from error


def inputs(model: str, vectors: str | None, policies: Path | None, apply: Path | None) -> Inputs:
    """Read the policy file and find the vectors, before a model is loaded."""
    from guardrail.calibrate.policy_file import PolicyFile
    from guardrail.plugins.manager import Plugins
    from guardrail.policy.loading import resolve_vectors
    from guardrail.vectors.values import TraitVectors

    if policies and apply and policies.resolve() != apply.resolve():
        raise ConfigError("--policies and --apply name different files; calibrate them one by one")
    path = apply or policies
    file = PolicyFile.read(path, Plugins.from_environment()) if path else None
    if vectors is None and file is None and model != "demo":
        raise ConfigError("no vectors: name a file with --vectors, or a policy file with --policies")
    own = file.vectors if file else resolve_vectors("demo")
    chosen = own if vectors is None else resolve_vectors(vectors, Path())
    if file and chosen != own and TraitVectors.load(chosen).sha256 != TraitVectors.load(own).sha256:
        raise ConfigError(f"--vectors is another file than the policies' own, {own}")
    return Inputs(policies=file, vectors=chosen, target=apply)


def read_sample(
    path: Path, subject: Subject, held_out: float, seed: int, skip_invalid: bool
) -> tuple[Sample, int]:
    """The split prompts, and how many were left out. Raises ConfigError with the line of every bad one."""
    from guardrail.calibrate.sample import read, split
    from guardrail.cli.calibrate.benign import read_benign

    file = read_benign(path)
    found = read(file.prompts, lambda messages: subject.render(messages).ids, subject.longest)
    problems = [*file.problems, *found.problems]
    if problems and not skip_invalid:
        more = len(problems) - SHOWN_PROBLEMS
        shown = [*problems[:SHOWN_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
        raise ConfigError("\n".join([*shown, "--skip-invalid leaves such prompts out"]))
    if not found.prompts:
        raise ConfigError(f"{path}: there is no prompt in it")
    return split(found.prompts, held_out, seed), len(problems)


def warn_about_calibration(file: PolicyFile, out: Path) -> None:
    """Thresholds that were found with one calibration mean something else under another."""
    from guardrail.policy.loading import resolve_calibration

    name, path = file.policies.calibration, file.document.path
    if name is None or resolve_calibration(name, path and path.parent).resolve() != out.resolve():
        print(
            f"warning: {path} names {name or 'no calibration'}, not {out}, for which these thresholds are; "
            "--set-calibration changes that",
            file=sys.stderr,
        )


def _edit(given: Inputs, made: Calibrated, calibration: Path | None) -> PolicyEdit | None:
    from guardrail.calibrate.policy_edit import edit

    return edit(given.target, made.thresholds, calibration) if given.target else None


@contextmanager
def console_quiet(model: str) -> Generator[None]:
    """A spinner, and no chatter of the libraries below."""
    from guardrail.cli.guards import silence

    with errors().status(f"loading {model} ..."):
        silence(model)
        yield


@contextmanager
def _progress(total: int) -> Generator[Callable[[int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = errors()
    with Progress(*columns, console=shown, disable=not shown.is_terminal, transient=True) as progress:
        task = progress.add_task("reading prompts", total=total)
        yield lambda count: progress.advance(task, count)


def drift(
    audit: Annotated[Path, typer.Option("--audit", help="An audit log: JSON Lines or SQLite.")],
    calibration: Annotated[str, typer.Option("--calibration", help="A calibration, or `demo`.")] = "demo",
    harmful_share: Annotated[
        float, typer.Option("--harmful-share", help="The share of live traffic that may be harmful.")
    ] = 0.0,
    as_json: JsonFlag = False,
) -> None:
    """Compare live scores of an audit log with the calibration that was in force.

    Exit code 1 where they have drifted.
    """
    from guardrail.audit import read
    from guardrail.calibrate.drift import drift
    from guardrail.calibration.values import Calibration
    from guardrail.policy.loading import resolve_calibration

    loaded = Calibration.load(resolve_calibration(calibration, Path()))
    report = drift(read(audit), loaded, harmful_share)
    if as_json:
        print_json(asdict(report) | {"drifted": report.drifted})
    else:
        print_drift(report)
    if report.drifted:
        raise typer.Exit(1)
