"""`guardrail vectors layers`: choose what `layer: auto` means, from a sweep run here or before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import errors, print_json, print_table
from guardrail.cli.evaluate.options import PageOption
from guardrail.cli.models import load_subject, load_vectors
from guardrail.cli.options import DEMO, JudgeOptions, ModelOptions, OutputOptions, takes_options
from guardrail.cli.vectors.layer_sweeps import SweepRun
from guardrail.cli.vectors.options import ChoiceOptions, ChosenFileOptions, Selector, SweepOptions
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.extract.layers.measurements import Sweep
    from guardrail.vectors.provenance import LayerChoice
    from guardrail.vectors.values import TraitVector, TraitVectors

MEASURES = {
    "position": "position",
    "trait": "trait",
    "coherence": "coherence",
    "induce": "induce",
    "ablation": "ablation",
    "kl": "KL",
    "auroc": "AUROC",
    "d_prime": "d'",
}
"""What may have been measured of a candidate, and the column's title."""


@takes_options
def layers(
    files: ChosenFileOptions,
    choice: ChoiceOptions,
    sweep: SweepOptions,
    model: ModelOptions,
    judge: JudgeOptions,
    page: PageOption,
    output: OutputOptions,
) -> None:
    """Choose each trait's layer and store it, with the reason, as what `layer: auto` means.

    `steering` adds the same multiple of every layer's vector on the evaluation questions and takes the
    highest trait score among coherent layers (the persona vectors paper). `separation` needs no judge and no
    replies. `refusal` is the rule of the refusal-direction paper. An interrupted sweep is resumed.
    Exit codes: 0 done; 1 no layer could be chosen for some traits; 2 for none, or a usage error.
    """
    page.check()
    if sweep.sweep and files.out is None:
        _only_choose(sweep.sweep, choice, page, output.as_json)
        return
    out = files.written()
    loaded = load_vectors(choice.vectors or DEMO)
    one_file = sweep.sweep is not None or (sweep.definition is not None and not sweep.definition.is_dir())
    names = named(loaded, choice.trait, alone=one_file)
    if sweep.sweep:
        sweeps = [read_sweep(sweep.sweep, loaded[names[0]])]
    else:
        run = SweepRun(
            model=model,
            judge=judge,
            selector=choice.by,
            asked=sweep,
            work=files.folder(out, "layers"),
            subject=partial(load_subject, model),
        )
        sweeps = run.sweeps([loaded[name] for name in names])
    _finish(loaded, sweeps, choice.by, choice.least_coherence, out, page, output.as_json)


def _only_choose(path: Path, choice: ChoiceOptions, page: PageOption, as_json: bool) -> None:
    """Which layer a sweep file chooses; the vectors, if named, only have to fit."""
    found = _chosen_sweep(path, choice)
    choices, _ = _choices([found], choice.by, choice.least_coherence)
    _publish(page, [found], choices, {})
    if as_json:
        print_json({"out": None, "choices": choices, "failed": {}, "sweeps": [found]})
    else:
        _print(found, choices[found.trait])
    page.tell(as_json)


def _chosen_sweep(path: Path, choice: ChoiceOptions) -> Sweep:
    from guardrail.extract.layers.files import load_sweep

    if choice.trait and len(choice.trait) > 1:
        raise ConfigError("a sweep is of one trait: say --trait once")
    found = load_sweep(path, choice.trait[0] if choice.trait else None)
    if choice.vectors is None:
        return found
    loaded = load_vectors(choice.vectors)
    return read_sweep(path, loaded[named(loaded, [found.trait], alone=True)[0]])


def _finish(
    loaded: TraitVectors,
    sweeps: Sequence[Sweep],
    by: Selector,
    floor: float | None,
    out: Path,
    page: PageOption,
    as_json: bool,
) -> None:
    from guardrail.extract.layers.measurements import with_layer

    choices, failed = _choices(sweeps, by, floor)
    made = loaded
    for name, choice in choices.items():
        made = with_layer(made, name, choice)
    made.save(out)
    _publish(page, sweeps, choices, failed)
    if as_json:
        print_json(
            {"out": out, "sha256": made.sha256, "choices": choices, "failed": failed, "sweeps": sweeps}
        )
    else:
        _print_all(sweeps, choices, failed)
        typer.echo(f"\nwrote {out}. Calibrate again: calibrations of the old file do not fit the new one")
    page.tell(as_json)
    if failed:
        raise typer.Exit(1)


def _publish(
    page: PageOption,
    sweeps: Sequence[Sweep],
    choices: Mapping[str, LayerChoice],
    failed: Mapping[str, str],
) -> None:
    if page.html is not None:
        from guardrail.report import layers

        layers.page(sweeps, choices, failed).write(page.html)


def _choices(
    sweeps: Sequence[Sweep], by: Selector, floor: float | None
) -> tuple[dict[str, LayerChoice], dict[str, str]]:
    """By trait: choices, and reasons for having none. Raises ExtractionError if nothing was chosen."""
    from guardrail.errors import ExtractionError

    choices: dict[str, LayerChoice] = {}
    failed: dict[str, str] = {}
    for sweep in sweeps:
        try:
            choices[sweep.trait] = _chosen(sweep, by, floor)
        except ExtractionError as error:
            failed[sweep.trait] = str(error)
    if not choices:
        raise ExtractionError("\n".join(failed.values()))
    return choices, failed


def _chosen(sweep: Sweep, by: Selector, floor: float | None) -> LayerChoice:
    from guardrail.extract.layers.selection import SELECTORS, by_steering

    return by_steering(sweep, floor) if by is Selector.STEERING else SELECTORS[by](sweep)


def named(loaded: TraitVectors, asked: Sequence[str] | None, *, alone: bool) -> list[str]:
    """The traits that are asked for, all by default. alone: there must be one. Raises ConfigError."""
    names = list(dict.fromkeys(asked or loaded))
    loaded.require(names)
    if alone and len(names) != 1:
        raise ConfigError(
            f"a sweep, a definition file or pairs are for one trait: say --trait, one of {', '.join(names)}"
        )
    return names


def read_sweep(path: Path, vector: TraitVector) -> Sweep:
    """A sweep over the layers of this vector. Raises ConfigError for another one."""
    from guardrail.extract.layers.files import load_sweep

    found = load_sweep(path, vector.trait)
    if found.layers != vector.layers:
        raise ConfigError(f"{path}: the sweep has {found.layers} layers, the vectors have {vector.layers}")
    return found


def _print_all(
    sweeps: Sequence[Sweep], choices: Mapping[str, LayerChoice], failed: Mapping[str, str]
) -> None:
    for sweep in sweeps:
        _print(sweep, choices.get(sweep.trait))
    for message in failed.values():
        errors().print(f"[bold red]layer not changed[/]  {message}")


def _print(sweep: Sweep, choice: LayerChoice | None) -> None:
    measured = [*([sweep.baseline] if sweep.baseline else ()), *sweep.candidates]
    shown = [name for name in MEASURES if any(getattr(one, name) is not None for one in measured)]
    place = (choice.layer, choice.position) if choice else None
    marks = ["chosen" if (c.layer, c.position) == place else "" for c in measured]
    numbers = [[getattr(c, name) for name in shown] for c in measured]
    rows = [(c.layer or "none", *row, mark) for c, row, mark in zip(measured, numbers, marks, strict=True)]
    print_table(("layer", *(MEASURES[name] for name in shown), ""), rows, title=f"\n{sweep.trait}")
    if choice:
        typer.echo(f"{sweep.trait}: layer {choice.layer} by {choice.selector}: {choice.rule}")
