"""`guardrail vectors layers`: choose what `layer: auto` means, from a sweep run here or before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.cli.console import JsonFlag, ModelName, errors, print_json, print_table
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.extract.layers.measurements import Sweep
    from guardrail.vectors.provenance import LayerChoice
    from guardrail.vectors.values import TraitVector, TraitVectors


class Selector(StrEnum):
    """The rules of `guardrail.extract.layers.selection`."""

    STEERING = "steering"
    SEPARATION = "separation"
    REFUSAL = "refusal"


def register(group: typer.Typer) -> None:
    """Add the verb to `guardrail vectors`."""
    group.command("layers")(layers)


def layers(
    out: Annotated[Path, typer.Option("--out", help="The vector file to write.")],
    vectors: Annotated[str, typer.Option("--vectors", help="A vector file, or `demo`.")] = "demo",
    trait: Annotated[list[str] | None, typer.Option("--trait", help="Only these; else all.")] = None,
    by: Annotated[Selector, typer.Option("--by", help="The rule that chooses.")] = Selector.STEERING,
    sweep: Annotated[
        Path | None,
        typer.Option("--sweep", help="A sweep made before, or a direction_evaluations.json: nothing is run."),
    ] = None,
    model: ModelName = "demo",
    definition: Annotated[
        Path | None,
        typer.Option("--definition", help="Where it is not built in: a definition, or a folder of them."),
    ] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", help="`openai:MODEL`, `local:MODEL`, `demo`, or a plugin's.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Of the judge's endpoint, for openai:MODEL.")
    ] = None,
    api_key_env: Annotated[
        str, typer.Option("--api-key-env", help="The environment variable that holds its key.")
    ] = "OPENAI_API_KEY",
    coefficient: Annotated[
        float, typer.Option("--coefficient", help="How much of each layer's vector is added.")
    ] = 1.0,
    floor: Annotated[float, typer.Option("--floor", help="Mean coherence that a layer needs.")] = 75.0,
    no_floor: Annotated[bool, typer.Option("--no-floor", help="Ask for no coherence.")] = False,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Replies to each question.")] = 5,
    new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Of each reply.")] = 256,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the replies.")] = 0,
    work: Annotated[
        Path | None, typer.Option("--work", help="Where sweeps are kept and go on (default: OUT.layers).")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 ...")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Choose each trait's layer and store it, with the reason, as what `layer: auto` means.

    `steering` adds the same multiple of every layer's vector on the evaluation questions and takes the
    highest trait score among coherent layers (the persona vectors paper). `separation` needs no judge and no
    replies. `refusal` is the rule of the refusal-direction paper. A sweep goes on where it was broken off.
    Exit codes: 0 done, 1 no layer could be chosen for some traits, 2 for none, or a usage error.
    """
    from guardrail.cli.vectors.layer_sweeps import SweepRun
    from guardrail.extract.layers.effects import SweepSettings

    if out.exists():
        raise ConfigError(f"{out} exists; nothing was done")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent} is no folder")
    loaded = _loaded(vectors)
    one_file = sweep is not None or (definition is not None and not definition.is_dir())
    names = _names(loaded, trait, alone=one_file)
    run = SweepRun(
        model=model,
        selector=by.value,
        definition=definition,
        judge=judge,
        base_url=base_url,
        api_key_env=api_key_env,
        settings=SweepSettings(
            coefficient=coefficient,
            samples=samples,
            max_new_tokens=new_tokens,
            temperature=temperature,
            seed=seed,
        ),
        work=work or out.with_name(f"{out.name}.layers"),
        device=device,
    )
    sweeps = [_read(sweep, loaded[names[0]])] if sweep else run.sweeps([loaded[name] for name in names])
    _finish(loaded, sweeps, by, None if no_floor else floor, out, as_json)


def _finish(
    loaded: TraitVectors, sweeps: Sequence[Sweep], by: Selector, floor: float | None, out: Path, as_json: bool
) -> None:
    from guardrail.extract.layers.measurements import with_layer

    choices, failed = _choices(sweeps, by, floor)
    made = loaded
    for name, choice in choices.items():
        made = with_layer(made, name, choice)
    made.save(out)
    if as_json:
        print_json(
            {"out": out, "sha256": made.sha256, "choices": choices, "failed": failed, "sweeps": sweeps}
        )
    else:
        _print_all(sweeps, choices, failed)
        typer.echo(f"\nwrote {out}. Calibrations of the file it was made from do not fit it: calibrate again")
    if failed:
        raise typer.Exit(1)


def _choices(
    sweeps: Sequence[Sweep], by: Selector, floor: float | None
) -> tuple[dict[str, LayerChoice], dict[str, str]]:
    """By trait: what was chosen, and why nothing was. Raises ExtractionError where that is all there is."""
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


def _loaded(name: str) -> TraitVectors:
    from guardrail.policy.loading import resolve_vectors
    from guardrail.vectors.values import TraitVectors

    return TraitVectors.load(resolve_vectors(name, Path()))


def _names(loaded: TraitVectors, asked: Sequence[str] | None, *, alone: bool) -> list[str]:
    from guardrail.files.problems import suggest

    names = list(dict.fromkeys(asked or loaded))
    for name in names:
        if name not in loaded:
            raise ConfigError(f"no trait `{name}`{suggest(name, list(loaded))}")
    if alone and len(names) != 1:
        raise ConfigError(f"one sweep or definition is for one trait: say --trait, one of {', '.join(names)}")
    return names


def _read(path: Path, vector: TraitVector) -> Sweep:
    from guardrail.extract.layers.files import load_sweep

    found = load_sweep(path, vector.trait)
    if found.layers != vector.layers:
        raise ConfigError(f"{path}: a sweep of {found.layers} layers, the vectors have {vector.layers}")
    return found


def _print_all(
    sweeps: Sequence[Sweep], choices: Mapping[str, LayerChoice], failed: Mapping[str, str]
) -> None:
    for sweep in sweeps:
        _print(sweep, choices.get(sweep.trait))
    for message in failed.values():
        errors().print(f"[bold red]layer left as it was[/]  {message}")


def _print(sweep: Sweep, choice: LayerChoice | None) -> None:
    positions = any(c.position is not None for c in sweep.candidates)
    place = (choice.layer, choice.position) if choice else None
    rows = [
        (
            "none" if c.layer == 0 else c.layer,
            *((c.position,) if positions else ()),
            *(c.trait, c.coherence, c.induce, c.ablation, c.kl, c.auroc, c.d_prime),
            "chosen" if (c.layer, c.position) == place else "",
        )
        for c in (*([sweep.baseline] if sweep.baseline else ()), *sweep.candidates)
    ]
    names = ("trait", "coherence", "induce", "ablation", "KL", "AUROC", "d'", "")
    print_table(("layer", *(("position",) if positions else ()), *names), rows, title=f"\n{sweep.trait}")
    if choice:
        typer.echo(f"{sweep.trait}: layer {choice.layer} by {choice.selector}: {choice.rule}")
