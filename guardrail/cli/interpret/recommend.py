"""`guardrail interpret recommend`: from an audit of a model to the layers that policies should read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from guardrail.cli.definitions import definition_of
from guardrail.cli.interpret.recommend_output import print_recommended
from guardrail.cli.interpret.reporting import ReportOptions
from guardrail.cli.models import load_subject, vectors_of
from guardrail.cli.options import DEMO, JudgeOptions, ModelOptions, OutputOptions, takes_options
from guardrail.cli.places import make_folder
from guardrail.cli.progress import staged
from guardrail.cli.vectors.layer_sweeps import SweepRun
from guardrail.cli.vectors.layers import named, read_sweep
from guardrail.cli.vectors.options import Selector, SweepOptions
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.calibrate.policy_edit import PolicyEdit
    from guardrail.extract.layers.measurements import Sweep
    from guardrail.extract.subject import Subject
    from guardrail.interpret.recommending.causes import Causes, CauseSettings
    from guardrail.interpret.recommending.contrasts import Contrast
    from guardrail.interpret.recommending.results import Recommended
    from guardrail.vectors.values import TraitVector, TraitVectors

DIFF = "policy.diff"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendOptions:
    """Which traits, on which prompts, and where results go."""

    out: Annotated[
        Path, Option(help=f"Folder for recommendation.json, {DIFF} and the state needed to resume.")
    ]
    vectors: Annotated[
        str | None, Option(help="Vector file. Default: that of --apply; for the model `demo`, its own.")
    ] = None
    trait: Annotated[list[str] | None, Option(help="Trait to recommend a layer for. Default: all.")] = None
    pairs: Annotated[
        Path | None,
        Option(
            help='Pairs of prompts for one trait (JSON Lines): {"source", "target"}, with and without the '
            "trait, each a text or messages. Default: the definition's evaluation questions, with "
            "instructions that ask for the trait and that forbid it."
        ),
    ] = None
    contrasts: Annotated[int, Option(min=2, help="Maximum pairs of prompts that are patched.")] = 24
    no_heads: Annotated[
        bool, Option("--no-heads", help="Patch whole attentions and MLPs only, not each head.")
    ] = False
    least_gap: Annotated[
        float, Option(min=0, help="Minimum difference between the two answers of a pair, in logits.")
    ] = 0.5
    apply: Annotated[
        Path | None, Option(help="Policy file to show a diff for, with the recommended layers.")
    ] = None
    write: Annotated[bool, Option("--write", help="With --apply: change the file.")] = False

    def __post_init__(self) -> None:
        if self.write and self.apply is None:
            raise ConfigError("--write needs --apply FILE")

    def read(self, model: str) -> tuple[TraitVectors, list[str]]:
        """The vectors, and the names of the traits. Raises ConfigError."""
        from guardrail.calibrate.policy_file import PolicyFile
        from guardrail.plugins.manager import Plugins

        file = PolicyFile.read(self.apply, Plugins.from_environment()) if self.apply else None
        loaded = vectors_of(model, self.vectors, file)
        return loaded, named(loaded, self.trait, alone=self.pairs is not None)

    def settings(self) -> CauseSettings:
        """How contrasts are patched."""
        from guardrail.interpret.recommending.causes import CauseSettings

        return CauseSettings(least_gap=self.least_gap, heads=not self.no_heads)


@takes_options
def recommend(
    options: RecommendOptions,
    sweep: SweepOptions,
    model: ModelOptions,
    judge: JudgeOptions,
    reports: ReportOptions,
    output: OutputOptions,
) -> None:
    """Recommend the layer that policies should read for each trait, and say which layers and heads carry it.

    Three kinds of evidence are joined: what the trait vector does to replies at each layer (patching), how
    well it separates prompts, and what steering with it does (with a judge). Disagreements are reported.
    An interrupted run is resumed. Exit codes: 0 done; 1 no layer for some trait; 2 usage error.
    """
    reports.check()
    vectors, names = options.read(model.name)
    given = _Given(
        options,
        sweep,
        model,
        judge,
        subject=cache(partial(load_subject, model)),
        contrasts=cache(partial(_contrasts, options, sweep, model)),
    )
    sweeps = given.sweeps([vectors[name] for name in names])
    causes = given.causes([vectors[name] for name in names])
    found = _joined(model.name, vectors, sweeps, causes)
    found.save(options.out)
    edit = _edit(options, vectors, found)
    from guardrail.report.recommendation import figures, recommendation_page

    diff = edit.diff() if edit else ""
    written = reports.write(lambda: recommendation_page(found, diff), lambda: figures(found))
    print_recommended(found, edit, written, done=options.write, as_json=output.as_json)
    if len(found.layers) < len(names):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Given:
    """What evidence is collected with. subject: loads the model once. contrasts: of a trait, read once."""

    options: RecommendOptions
    asked: SweepOptions
    model: ModelOptions
    judge: JudgeOptions
    subject: Callable[[], Subject]
    contrasts: Callable[[str], list[Contrast]]

    def sweeps(self, vectors: Sequence[TraitVector]) -> list[Sweep]:
        """Separation and, with a judge, steering; or what an earlier sweep found."""
        if self.asked.sweep and len(vectors) != 1:
            raise ConfigError("--sweep is of one trait: say --trait")
        make_folder(self.options.out, "--out")
        if self.asked.sweep:
            return [read_sweep(self.asked.sweep, vectors[0])]
        if self.options.pairs:
            return [self._separation(vectors[0], self.contrasts(vectors[0].trait))]
        judged = self.judge.judge or self.model.name == DEMO
        by = Selector.STEERING if judged else Selector.SEPARATION
        run = SweepRun(
            model=self.model,
            judge=self.judge,
            selector=by,
            asked=self.asked,
            work=self.options.out,
            subject=self.subject,
        )
        return run.sweeps(vectors)

    def _separation(self, vector: TraitVector, contrasts: Sequence[Contrast]) -> Sweep:
        from guardrail.extract.layers.sweep import separation, usable

        usable(vector, self.asked.tried())
        shown, bare = [one.source for one in contrasts], [one.target for one in contrasts]
        return separation(self.subject(), vector, shown, bare, self.asked.tried())

    def causes(self, vectors: Sequence[TraitVector]) -> dict[str, Causes]:
        """The effects of every trait's contrasts."""
        contrasts = {one.trait: self.contrasts(one.trait)[: self.options.contrasts] for one in vectors}
        subject = self.subject()
        from guardrail.interpret.recommending.causes import causes

        with staged() as report:
            return {
                one.trait: causes(
                    subject,
                    one,
                    contrasts[one.trait],
                    self.options.settings(),
                    self.options.out / one.trait,
                    report,
                )
                for one in vectors
            }


def _contrasts(
    options: RecommendOptions, asked: SweepOptions, model: ModelOptions, trait: str
) -> list[Contrast]:
    from guardrail.interpret.recommending.contrasts import contrasts_of, load_contrasts

    if options.pairs:
        return load_contrasts(options.pairs)
    definition = definition_of(trait, asked.definition, model.name)
    return contrasts_of(definition.with_questions(asked.questions))


def _joined(
    model: str, vectors: TraitVectors, sweeps: Sequence[Sweep], causes: Mapping[str, Causes]
) -> Recommended:
    from guardrail.interpret.recommending.ranking import recommended
    from guardrail.interpret.recommending.results import Recommended
    from guardrail.interpret.recommending.risks import risks

    traits = tuple(recommended(one.trait, vectors[one.trait].layer, causes[one.trait], one) for one in sweeps)
    return Recommended(model=model, traits=traits, risks=risks(causes))


def _edit(options: RecommendOptions, vectors: TraitVectors, found: Recommended) -> PolicyEdit | None:
    """The edit of the policy file, whose diff is kept. A sum over several layers is not moved."""
    if options.apply is None:
        return None
    from guardrail.calibrate.policy_edit import layered

    moved = {trait: layer for trait, layer in found.layers.items() if not vectors[trait].sites}
    edit = layered(options.apply, moved)
    (options.out / DIFF).write_text(edit.diff(), encoding="utf-8")
    if options.write:
        edit.write()
    return edit
