"""`guardrail vectors fit`: from labelled prompts to a vector file, and to a policy file if wanted.

Exit codes: 0 done, 2 a usage or configuration error; then nothing is written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import note, print_json
from guardrail.cli.models import load_subject, sleep_while_waiting
from guardrail.cli.options import ModelOptions, OutputOptions, takes_options
from guardrail.cli.progress import staged
from guardrail.cli.prompts import InputPrompt, with_system
from guardrail.cli.vectors.extract import now
from guardrail.cli.vectors.fit_options import METHODS, FittedOptions, LabelledOptions, SearchOptions
from guardrail.cli.vectors.fit_policy import calibration, next_steps, policy_text
from guardrail.cli.vectors.fits import print_fit
from guardrail.errors import ConfigError
from guardrail.files.problems import suggest
from guardrail.files.whole import write_whole

if TYPE_CHECKING:
    from guardrail.extract.fit.prepared import Prepared
    from guardrail.extract.fit.rows import LabelledPrompt
    from guardrail.extract.fit.states import Rendered
    from guardrail.extract.subject import Subject
    from guardrail.plugins.protocols import LabelledMethod
    from guardrail.vectors.values import TraitVectors


@takes_options
def fit(
    labelled: LabelledOptions,
    files: FittedOptions,
    model: ModelOptions,
    search: SearchOptions,
    output: OutputOptions,
) -> None:
    """Create trait vectors and probes from labelled prompts.

    What a probe reads and how it is fitted is chosen on sources that are held out. If interrupted, run the
    same command again to resume; the states that were read serve later fits of the same prompts as well.
    """
    methods = _methods(search.method or METHODS)
    given = _prepared(labelled, search)
    aside = ""
    if files.benign_out is not None:
        given, aside = _without_benign(given, search.seed, files)
    vectors = _fitted(given, labelled, files, model, search, methods)
    vectors.save(files.out)
    if files.benign_out is not None:
        write_whole(files.benign_out, aside.encode())
    if files.policy is not None:
        calibrate = calibration(model.name, files.policy, files.out, files.benign_out)
        text = policy_text(vectors, files.out, files.policy, files.fpr, calibrate)
        write_whole(files.policy, text.encode())
    _show(vectors, files, model, output.as_json)


def _methods(names: Sequence[str]) -> Sequence[LabelledMethod]:
    from guardrail.plugins.manager import Plugins
    from guardrail.plugins.protocols import LabelledMethod

    every = Plugins.from_environment().extraction_methods
    known = {name: method for name, method in every.items() if isinstance(method, LabelledMethod)}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"--method: `{unknown[0]}` does not fit labelled prompts{suggest(unknown[0], known)}; these do: "
            f"{', '.join(known)}"
        )
    return [known[name] for name in dict.fromkeys(names)]


def _prepared(labelled: LabelledOptions, search: SearchOptions) -> Prepared:
    """The prompts, checked without a model."""
    from guardrail.extract.fit.prepared import prepare
    from guardrail.extract.fit.reading import read_labelled
    from guardrail.extract.fit.rows import sampled

    found = read_labelled(labelled.data, labelled.columns(), labelled.validation)
    _refuse(found.problems, labelled.skip_invalid)
    rows = _with_system(sampled(found.rows, labelled.max_prompts, search.seed), labelled.system)
    return prepare(rows, labelled.trait or ())


def _without_benign(given: Prepared, seed: int, files: FittedOptions) -> tuple[Prepared, str]:
    """What is fitted on, and the lines that are set aside."""
    from guardrail.extract.fit.prepared import prepare
    from guardrail.extract.fit.set_aside import set_aside

    parted = set_aside(given, seed)
    note(parted.describe(len(given.rows)))
    if files.policy is not None and (text := parted.shortage(files.fpr)):
        note(f"warning: {text}")
    return replace(prepare(parted.rest, given.traits), repeated=given.repeated), parted.lines()


def _refuse(problems: Sequence[str], skip: bool) -> None:
    from guardrail.files.json_lines import refuse

    if skip and problems:
        print(f"left out {len(problems)} prompts that cannot be read, such as {problems[0]}", file=sys.stderr)
    elif problems:
        refuse(problems, "--skip-invalid leaves such prompts out")


def _with_system(rows: Sequence[LabelledPrompt], system: str | None) -> list[LabelledPrompt]:
    prompts = with_system((InputPrompt(name=row.place, content=row.messages) for row in rows), system)
    return [
        replace(row, messages=tuple(prompt.content))  # type: ignore[arg-type]
        for row, prompt in zip(rows, prompts, strict=True)
    ]


def _fitted(
    given: Prepared,
    labelled: LabelledOptions,
    files: FittedOptions,
    model: ModelOptions,
    search: SearchOptions,
    methods: Sequence[LabelledMethod],
) -> TraitVectors:
    sleep_while_waiting()
    subject = load_subject(model, search.batch)
    from guardrail.extract.fit.fit import FitSettings, fit
    from guardrail.extract.fit.prepared import prepare
    from guardrail.extract.fit.states import rendered

    settings = FitSettings(
        methods=tuple(methods),
        layers=search.chosen_layers(subject.layers),
        positions=search.chosen_positions(),
        most_places=search.max_sites,
        seed=search.seed,
    )
    prompts = rendered(subject, given.rows, settings.read)
    _refuse(prompts.problems, labelled.skip_invalid)
    if prompts.problems:
        given = prepare(prompts.rows, given.traits)
    _announce(subject, prompts, files)
    with staged() as report:
        return fit(subject, given, prompts, settings, files.folder, now(), report)


def _announce(subject: Subject, prompts: Rendered, files: FittedOptions) -> None:
    """Say what is about to be done, and for how long."""
    from guardrail.extract.fit.states import bytes_to_keep, missing, seconds_to_read

    todo = missing(subject, prompts, files.folder)
    what = f"{len(prompts.rows)} prompts, {prompts.tokens} tokens"
    if not todo:
        note(f"{what}: read before, in {files.folder}")
        return
    minutes = max(seconds_to_read(subject, prompts) * todo / 60, 0.1)
    size = bytes_to_keep(subject, prompts) / 1e6
    note(f"{what}: about {minutes:.1f} minutes to read; {size:.0f} MB in {files.folder}")


def _show(vectors: TraitVectors, files: FittedOptions, model: ModelOptions, as_json: bool) -> None:
    if as_json:
        made = {"sha256": vectors.sha256, "provenance": vectors.provenance}
        print_json({"out": files.out, **made, "policy": files.policy})
        return
    for name, one in vectors.provenance.fits.items():
        print_fit(name, one)
    written = [str(path) for path in (files.out, files.policy, files.benign_out) if path is not None]
    typer.echo(f"\nwrote {', '.join(written)}")
    typer.echo(next_steps(files.out, files.policy, files.benign_out, model.name))
