"""`guardrail interpret patch`: which values carry a persona, by putting those of one run into another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from guardrail.cli.console import interval, note, print_json, print_table
from guardrail.cli.interpret.asking import Forms
from guardrail.cli.interpret.reporting import ReportOptions
from guardrail.cli.options import DEMO, ModelOptions, OutputOptions, takes_options
from guardrail.cli.places import make_folder
from guardrail.cli.progress import staged
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.extract.subject import Subject
    from guardrail.interpret.patching import PairLine, PatchResult, PatchSettings

HEAD = (
    "layer",
    "MLP at identity",
    "attention at identity",
    "MLP, all",
    "attention, all",
    "residual at identity",
)
SHOWN = 8
"""Heads that are printed; the report and --json have all."""


class Sweeps(StrEnum):
    """What is patched."""

    SCOPES = "scopes"
    POSITIONS = "positions"
    WINDOWS = "windows"
    HEADS = "heads"
    DIRECT = "direct"


class Directions(StrEnum):
    """Whose values are put where."""

    DENOISING = "denoising"
    NOISING = "noising"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchOptions:
    """Pairs and sweeps."""

    pairs: Annotated[
        Path | None,
        Argument(
            help='Pairs of prompts (JSON Lines): {"system", "prompt", "source", "target", "answers"}, with '
            "{identity} once in system or prompt. Default for `demo`: built-in pairs."
        ),
    ] = None
    out: Annotated[
        Path,
        Option(help="Folder for the result (patch.safetensors, patch.json) and the state needed to resume."),
    ]
    sweep: Annotated[
        list[Sweeps] | None,
        Option(
            help="Sweep to run; repeat for several. scopes: the identity's tokens, all, all others; "
            "positions: token by token; windows: several layers at once; heads; direct: direct and indirect "
            "effect. Default: all."
        ),
    ] = None
    direction: Annotated[
        Directions,
        Option(help="denoising: source values in the target's run; noising: the other way round."),
    ] = Directions.BOTH
    form: Annotated[
        Forms, Option(help="Prompts by the chat template, or as text to continue; auto: as the model needs.")
    ] = Forms.AUTO
    near: Annotated[
        int, Option(min=0, help="Single tokens swept after the identity and before the last one.")
    ] = 3
    window: Annotated[int, Option(min=1, help="Layers in a window.")] = 4
    least_gap: Annotated[
        float,
        Option(
            min=0, help="Minimum difference between the two answers, in logits; other pairs are left out."
        ),
    ] = 0.5

    def lines(self, model: str) -> list[PairLine]:
        """Raises ConfigError if there are none, or for lines that are not pairs."""
        from guardrail.interpret.patching import load_pairs
        from guardrail.interpret.patching.builtin import demo_pairs

        if self.pairs is None:
            if model != DEMO:
                raise ConfigError("no pairs: name a JSON Lines file of pairs of prompts")
            return demo_pairs()
        if not (found := load_pairs(self.pairs)):
            raise ConfigError(f"{self.pairs}: the file contains no pair")
        return found

    def settings(self, subject: Subject) -> PatchSettings:
        """What is swept on this model."""
        from guardrail.interpret.patching import PatchSettings
        from guardrail.interpret.patching.patches import SWEEPS
        from guardrail.interpret.patching.results import DIRECTIONS

        chosen = self.direction
        return PatchSettings(
            sweeps=tuple(one for one in SWEEPS if self.sweep is None or one in self.sweep),
            directions=DIRECTIONS if chosen is Directions.BOTH else (chosen.value,),
            form=self.form.of(subject),
            near=self.near,
            window=min(self.window, subject.layers),
            least_gap=self.least_gap,
        )


@takes_options
def patch(options: PatchOptions, model: ModelOptions, reports: ReportOptions, output: OutputOptions) -> None:
    """Find which values make a model answer as a persona, by activation patching.

    Two prompts differ in the identity alone. Values of one run are put into the other, site by site: 0 is
    no effect, 1 makes the run answer like the other one. Pairs that cannot be compared are counted, with the
    reason. An interrupted run is resumed. Exit codes: 0 done; 1 no pair could be patched; 2 usage error.
    """
    reports.check()
    lines = options.lines(model.name)
    make_folder(options.out, "--out")
    subject = options.form.load(model)
    from guardrail.interpret.patching import sweep

    with staged() as report:
        found = sweep(subject, lines, options.settings(subject), options.out, model.name, report)
    found.save(options.out)
    _publish(found, reports, output.as_json)
    if not found.about.pairs:
        note("no pair could be patched: the persona changes no answer, or pairs do not fit; see the reasons")
        raise typer.Exit(1)


def _publish(found: PatchResult, reports: ReportOptions, as_json: bool) -> None:
    from guardrail.report.patching import figures, patch_page

    written = reports.write(lambda: patch_page(found), lambda: figures(found))
    if as_json:
        print_json({**found.about.model_dump(mode="json", exclude={"patches"}), "effects": _summary(found)})
        return
    from guardrail.interpret.patching.pairs import told

    about = found.about
    typer.echo(f"{len(about.pairs)} pairs patched, {len(about.rejects)} left out")
    for line in told(about.rejects):
        typer.echo(f"  {line}")
    for line in about.notes:
        typer.echo(line)
    for direction in about.directions if about.pairs else ():
        _print_effects(found, direction)
    for path in written:
        typer.echo(f"\n{path}: written")


def _print_effects(found: PatchResult, direction: str) -> None:
    from guardrail.interpret.patching.results import HEAD_TOKENS

    if rows := list(_rows(found, direction)):
        print_table(HEAD, rows, f"\n{direction}: mean effect")
    for where in found.head_tokens:
        effects = list(found.heads(where, direction).items())[:SHOWN]
        heads = [(f"{patch.layers[0]}.{patch.head}", interval(effect, ".2f")) for patch, effect in effects]
        print_table((f"heads at {HEAD_TOKENS[where]}", "effect"), heads, f"\n{direction}: strongest heads")


def _summary(found: PatchResult) -> list[dict[str, object]]:
    """The mean of every patch that some pair has the tokens for."""
    return [
        {
            "direction": direction,
            "patch": patch,
            "effect": effect,
            "flips": found.mean(patch, direction, "flips"),
        }
        for direction in found.about.directions
        for patch in found.about.patches
        if (effect := found.mean(patch, direction))
    ]


def _rows(found: PatchResult, direction: str) -> Iterator[list[object]]:
    from guardrail.interpret.patching.patches import PARTS

    columns = [found.layer(part, where, direction) for where in ("identity", "all") for part in PARTS]
    columns.append(found.layer("resid", "identity", direction))
    for layer in range(found.about.layers + 1):
        cells = [interval(column.get(layer), ".2f") for column in columns]
        if any(cells):
            yield [layer, *cells]
