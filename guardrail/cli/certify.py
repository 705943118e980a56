"""`guardrail certify`: whether verdicts stay the same under another engine, dtype, quantisation or version.

Exit codes: 0 PASS, or recorded; 1 RECALIBRATE or FAIL; 2 a usage or configuration error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from guardrail.cli.calibrate.benign import prompts_of, read_benign
from guardrail.cli.calibrate.options import check_new_calibration, slice_files
from guardrail.cli.console import print_json, print_table
from guardrail.cli.evaluate.options import PageOption
from guardrail.cli.models import check_policies, open_guard
from guardrail.cli.options import (
    DEMO,
    ModelOptions,
    OutputOptions,
    PoliciesOption,
    SystemOption,
    settings,
    takes_options,
)
from guardrail.cli.progress import counted
from guardrail.cli.prompts import InputPrompt, from_json_lines, with_system
from guardrail.errors import ConfigError
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.certify.comparison import Certified
    from guardrail.certify.recording import Prompt, Recording
    from guardrail.certify.results import Changes, Comparison, RateCheck
    from guardrail.plugins.manager import Plugins
    from guardrail.policy.loading import ActivePolicies
    from guardrail.policy.rates import Rate
    from guardrail.statistics.intervals import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedOptions(SystemOption):
    """The prompts, and the two configurations."""

    benign: Annotated[
        Path | None,
        Option(help="Benign prompts: JSON Lines, .txt (one per line) or .csv. Not needed for `demo`."),
    ] = None
    slices: Annotated[
        list[str] | None,
        Option(
            "--slice",
            metavar="NAME=FILE",
            help="Other benign prompts, as in `calibrate`, compared on their own. Repeatable.",
        ),
    ] = None
    input: Annotated[
        Path | None, Option("--input", help="Other prompts, such as attacks (JSON Lines), to compare on too.")
    ] = None
    record: Annotated[
        Path | None, Option(help="File to write what this configuration says, to compare later.")
    ] = None
    against: Annotated[Path | None, Option(help="Recording of the reference configuration.")] = None
    recorded: Annotated[
        Path | None, Option(help="Recording of the candidate; no model is loaded then. Needs --against.")
    ] = None

    def __post_init__(self) -> None:
        if self.recorded is not None and (self.record or self.against is None):
            raise ConfigError("--recorded FILE is compared with --against FILE, and nothing is recorded")
        if self.record is None and self.against is None:
            raise ConfigError("nothing to do: name --record FILE to write, or --against FILE to compare with")
        if self.recorded and (self.benign or self.slices or self.input or self.system is not None):
            raise ConfigError(
                "--recorded holds its prompts; leave out --benign, --slice, --input and --system"
            )
        if slice_files(self.slices) and self.benign is None:
            raise ConfigError("--slice needs --benign FILE: the prompts that slices stand beside")
        if self.record is not None and not self.record.absolute().parent.is_dir():
            raise ConfigError(f"{self.record}: there is no such folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateOptions:
    """The calibration file that is written, and how long its certificate counts."""

    out: Annotated[
        Path,
        Option(help="Calibration file to write: with a certificate (PASS), or made anew (RECALIBRATE)."),
    ] = Path("certified.json")
    force: Annotated[bool, Option("--force", help="Overwrite --out if it exists.")] = False
    max_age_days: Annotated[
        float | None, Option("--max-age", min=0.01, max=36500, help="Days until the certificate is stale.")
    ] = None
    max_drift: Annotated[
        float | None,
        Option(min=0, max=1, help="Kolmogorov-Smirnov distance of live scores that makes it stale."),
    ] = None


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("certify")(certify)


@takes_options
def certify(
    given: ComparedOptions,
    model: ModelOptions,
    policies: PoliciesOption,
    certificate: CertificateOptions,
    page: PageOption,
    output: OutputOptions,
) -> None:
    """Compare verdicts under two configurations: engine, dtype, quantisation, versions, chat template.

    The verdict is PASS, RECALIBRATE or FAIL, and the exit code is 1 unless it is PASS. Record the reference
    first (--record), then compare another configuration with it (--against).
    """
    page.check()
    if given.against is not None:
        check_new_calibration(certificate.out, certificate.force)
    source = _source(model, policies.policies)
    reference = _loaded(given.against) if given.against else None
    candidate = _loaded(given.recorded) if given.recorded else _recorded(given, model, source, output.as_json)
    if reference is None:
        return
    found = _compared(reference, candidate, source, certificate)
    if found.calibration is not None:
        found.calibration.save(certificate.out)
    _publish(found, certificate.out, page.html, output.as_json)
    if found.comparison.verdict != "PASS":
        raise typer.Exit(1)


def _source(model: ModelOptions, policies: Path | None) -> dict[str, object]:
    from guardrail.certify.policies import comparable
    from guardrail.policy.loading import default_policies

    path = policies or default_policies(model.name)
    check_policies(path, model)
    return comparable(path)


def _loaded(path: Path) -> Recording:
    from guardrail.certify.recording import Recording

    return Recording.load(path)


def _recorded(
    given: ComparedOptions, model: ModelOptions, source: dict[str, object], as_json: bool
) -> Recording:
    """What the configuration of the options says. Written down if that was asked for."""
    prompts = _prompts(given, model, source)
    from guardrail.certify.recording import record

    with open_guard(model, source) as guard, counted("deciding", len(prompts)) as advance:
        found = record(guard, prompts, advance)
    if given.record is not None:
        found.save(given.record)
        if given.against is None:
            _print_recorded(found, given.record, as_json)
    return found


def _print_recorded(found: Recording, path: Path, as_json: bool) -> None:
    counts = {"prompts": len(found.said), "benign": int(found.benign.sum())}
    if as_json:
        print_json({"recording": str(path), "configuration": found.configuration, **counts})
    else:
        typer.echo(
            f"{path}: {counts['prompts']} distinct prompts, {counts['benign']} of them benign, under "
            f"{found.configuration}"
        )


def _prompts(given: ComparedOptions, model: ModelOptions, source: dict[str, object]) -> list[Prompt]:
    """Those of the files, else of the built-in model. Raises ConfigError for too few, and for bad lines."""
    from guardrail.certify.comparison import check_count

    found = _from_files(given) if given.benign else _built_in(model, source)
    found += _other(given)
    check_count(len({str(one.messages) for one in found if one.benign and not one.slice}))
    return found


def _from_files(given: ComparedOptions) -> list[Prompt]:
    """The benign sample, and slices. Raises ConfigError for bad lines, and for prompts that they share."""
    from guardrail.certify.recording import Prompt

    assert given.benign is not None
    files = {"": read_benign(given.benign)}
    files |= {name: read_benign(path) for name, path in slice_files(given.slices).items()}
    if problems := [problem for file in files.values() for problem in file.problems]:
        raise ConfigError("\n".join(problems))
    found = [
        Prompt(name=place, messages=content, benign=True, slice=name)
        for name, file in files.items()
        for place, content in prompts_of(file, given.system, own=bool(name))
    ]
    _check_apart(found)
    return found


def _check_apart(prompts: Sequence[Prompt]) -> None:
    first: dict[str, Prompt] = {}
    for one in prompts:
        known = first.setdefault(str(one.messages), one)
        if known.slice != one.slice:
            raise ConfigError(f"slice `{one.slice}`: {one.name} is the same prompt as {known.name}")


def _other(given: ComparedOptions) -> list[Prompt]:
    prompts = from_json_lines(given.input) if given.input else []
    return [_prompt(one, benign=False) for one in with_system(prompts, given.system)]


def _prompt(one: InputPrompt, *, benign: bool) -> Prompt:
    from guardrail.certify.recording import Prompt

    return Prompt(name=one.name, messages=one.content, benign=benign, tags=one.tags)


def _built_in(model: ModelOptions, source: dict[str, object]) -> list[Prompt]:
    from guardrail.certify import builtin
    from guardrail.policy.loading import load

    if model.name != DEMO:
        raise ConfigError("no benign prompts: name a file with --benign")
    active = load(source, None, _plugins())
    return builtin.prompts({c.trait for rule in active.plan.rules for c in rule.conditions})


def _plugins() -> Plugins:
    from guardrail.plugins.manager import Plugins

    return Plugins.from_environment()


def _compared(
    reference: Recording, candidate: Recording, source: dict[str, object], options: CertificateOptions
) -> Certified:
    from guardrail.certify import comparison
    from guardrail.policy.loading import load

    active: ActivePolicies = load(source, reference.fingerprint, _plugins())
    return comparison.certify(reference, candidate, active, settings(comparison.Limits, options))


# --- output -------------------------------------------------------------------------------------------


def _publish(found: Certified, out: Path, html: Path | None, as_json: bool) -> None:
    written = str(out) if found.calibration is not None else None
    if html is not None:
        from guardrail.report.certification import page

        page(found.comparison, written).write(html)
    if as_json:
        print_json(asdict(found.comparison) | {"calibration": written})
    else:
        _print(found.comparison, written)


def _print(found: Comparison, written: str | None) -> None:
    typer.echo(f"reference: {found.reference}\ncandidate: {found.candidate}")
    columns = ("trait", "layer", "n", "slope", "offset", "rank correlation", "largest difference")
    rows = [
        (a.trait, a.layer, a.n, _number(a.slope), _number(a.offset), _number(a.rank, 4), a.largest)
        for a in found.agreement
    ]
    print_table(columns, rows, title="\nscores: candidate = slope * reference + offset (95 %)")
    parts = (("all", found.all), ("benign", found.benign), ("others", found.others))
    rows = [(name, *_changes(one)) for name, one in parts if one]
    print_table(("prompts", "n", "changed", "share (95 %)"), rows, title="\nverdicts that change")
    _print_rates("false-positive rates on the benign prompts", found.rates)
    if found.recalibrated and found.recalibrated.rates:
        n = found.recalibrated.tested
        _print_rates(f"with new thresholds, on the {n} benign prompts left out", found.recalibrated.rates)
    _print_verdict(found, written)


def _print_rates(title: str, rates: tuple[RateCheck, ...]) -> None:
    rows = [(r.name, _stated(r.stated), _share(r.reference), _share(r.candidate), _kept(r)) for r in rates]
    columns = ("policy", "stated (95 %)", "reference (95 %)", "candidate (95 %)", "")
    print_table(columns, rows, title=f"\n{title}")


def _print_verdict(found: Comparison, written: str | None) -> None:
    if found.not_compared:
        typer.echo(f"\nnot compared: {', '.join(found.not_compared)}")
    for note in found.notes:
        typer.echo(f"\nnote: {note}")
    typer.echo(f"\n{found.verdict}")
    for reason in found.reasons:
        typer.echo(f"- {reason}")
    if written:
        how = "with its certificate" if found.verdict == "PASS" else "to use under the candidate"
        typer.echo(f"{written}: calibration written, {how}")


def _number(value: Estimate, digits: int = 3) -> str:
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _share(value: Estimate) -> str:
    return f"{value.value:.2%} [{value.low:.2%}, {value.high:.2%}]"


def _stated(value: Rate | None) -> str:
    return "unknown" if value is None else f"{value.value:.2%} [{value.low:.2%}, {value.high:.2%}]"


def _changes(one: Changes) -> tuple[int, int, str]:
    return one.n, one.changed, _share(one.share)


def _kept(one: RateCheck) -> str:
    return "kept" if one.kept else "EXCEEDED"
