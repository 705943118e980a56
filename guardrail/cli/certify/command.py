"""`guardrail certify`: whether verdicts stay the same under another engine, dtype, quantisation or version.

Exit codes: 0 PASS, or recorded; 1 RECALIBRATE or FAIL; 2 a usage or configuration error.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from guardrail.cli.calibrate.options import check_new_calibration
from guardrail.cli.certify.options import CertificateOptions, ComparedOptions
from guardrail.cli.certify.output import print_recorded, publish
from guardrail.cli.certify.prompts import prompts
from guardrail.cli.evaluate.options import PageOption
from guardrail.cli.models import check_policies, open_guard
from guardrail.cli.options import (
    ModelOptions,
    OutputOptions,
    PoliciesOption,
    settings,
    takes_options,
)
from guardrail.cli.progress import counted
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.certify.comparison import Certified
    from guardrail.certify.recording import Recording
    from guardrail.policy.loading import ActivePolicies


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
    active = _active(source, reference) if reference else None
    candidate = _loaded(given.recorded) if given.recorded else _recorded(given, model, source, output.as_json)
    if reference is None or active is None:
        return
    found = _compared(reference, candidate, active, certificate)
    if found.calibration is not None:
        found.calibration.save(certificate.out)
    publish(found, certificate.out, page.html, output.as_json)
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
    asked = prompts(given, model, source)
    from guardrail.certify.recording import record

    with open_guard(model, source) as guard, counted("deciding", len(asked)) as advance:
        found = record(guard, asked, advance)
    if given.record is not None:
        found.save(given.record)
        if given.against is None:
            print_recorded(found, given.record, as_json)
    return found


def _active(source: dict[str, object], reference: Recording) -> ActivePolicies:
    """The policies as the reference has them. Raises PolicyError if they are not for its model."""
    from guardrail.plugins.manager import Plugins
    from guardrail.policy.loading import load

    return load(source, reference.fingerprint, Plugins.from_environment())


def _compared(
    reference: Recording, candidate: Recording, active: ActivePolicies, options: CertificateOptions
) -> Certified:
    from guardrail.certify import comparison

    return comparison.certify(reference, candidate, active, settings(comparison.Limits, options))
