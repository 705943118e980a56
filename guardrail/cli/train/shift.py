"""`guardrail train shift`: how far finetunes have moved from their base along every trait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from guardrail.cli.console import print_json
from guardrail.cli.definitions import own_definition
from guardrail.cli.evaluate.options import PageOption
from guardrail.cli.models import load_subject
from guardrail.cli.options import ModelOptions, OutputOptions, takes_options
from guardrail.cli.progress import staged
from guardrail.cli.prompts import conversations
from guardrail.cli.train.models import BaseOptions, load_finetune, named, one_named, vectors_for
from guardrail.cli.train.shift_output import print_shift
from guardrail.errors import ConfigError, TraitError

if TYPE_CHECKING:
    from guardrail.extract.journal import Report
    from guardrail.extract.subject import Subject
    from guardrail.train.shift import Prediction, Relation, Shift, ShiftMeter
    from guardrail.train.shift.projections import Conversations
    from guardrail.traits import TraitDefinition
    from guardrail.vectors.values import TraitVectors


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftOptions:
    """What is measured, on which prompts."""

    tuned: Annotated[
        list[str],
        Argument(
            help="Finetunes of the base: folders or hub ids of models or adapters. The folder of a training "
            "run stands for its checkpoints."
        ),
    ]
    since: Annotated[
        str | None, Option(help="Earlier checkpoint to measure the shift from, instead of the base.")
    ] = None
    vectors: Annotated[str | None, Option(help="Vector file of the base. Default: `demo` for `demo`.")] = None
    trait: Annotated[list[str] | None, Option(help="Measure only these traits.")] = None
    layer: Annotated[
        int | None, Option(min=1, help="Layer to quote. Default: the one that the vector file chose.")
    ] = None
    prompts: Annotated[
        Path | None,
        Option(
            help="Prompts (JSON Lines, as for `check --input`) for all traits. Default: the evaluation "
            "questions of each trait, without a system prompt."
        ),
    ] = None
    definition: Annotated[
        Path | None, Option(help="Definition file or folder, for traits that are not built in.")
    ] = None
    relation: Annotated[
        Path | None, Option(help="Shifts and later scores of earlier finetunes, to predict scores from.")
    ] = None


@takes_options
def shift(options: ShiftOptions, base: BaseOptions, page: PageOption, output: OutputOptions) -> None:
    """Measure how far finetuning moved a model along every trait, at the last prompt token.

    The shift is the mean difference of activations between a finetune and its base, along the base's trait
    vectors. Traits whose shifts cannot be told apart are named.
    """
    page.check()
    vectors, relation = vectors_for(base, options.vectors), _relation(options.relation)
    wanted = Wanted.of(options, base, vectors)
    models = named(options.tuned)
    earlier = one_named(options.since, "--since") if options.since else None
    with staged() as report:
        meter = wanted.meter(load_subject(base), base, report)
        since = meter.read(load_finetune(earlier, base, meter.ancestor), earlier) if earlier else None
        found = [meter.measure(load_finetune(name, base, meter.ancestor), name, since) for name in models]
    predicted = [_predicted(relation, meter, one) for one in found]
    _publish(found, predicted, page, output.as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is measured, checked as far as that goes without a model."""

    vectors: TraitVectors
    prompts: dict[str, Conversations]
    definitions: list[TraitDefinition]
    layer: int | None

    @classmethod
    def of(cls, options: ShiftOptions, base: ModelOptions, vectors: TraitVectors) -> Wanted:
        """Raises ConfigError for unknown traits and layers, TraitError for traits without a definition."""
        from guardrail.train.shift import trait_questions
        from guardrail.train.shift.meter import check_prompts, quoted_layer

        names = list(dict.fromkeys(options.trait or vectors))
        vectors.require(names)
        definitions = [one for name in vectors if (one := _definition(name, options, base, names))]
        asked = _conversations(options.prompts) if options.prompts else None
        questions = trait_questions(definitions) if asked is None else dict.fromkeys(names, asked)
        prompts = {name: questions[name] for name in names}
        check_prompts(prompts, vectors)
        for name in names:
            quoted_layer(vectors[name], options.layer)
        return cls(vectors=vectors, prompts=prompts, definitions=definitions, layer=options.layer)

    def meter(self, base: Subject, model: ModelOptions, report: Report) -> ShiftMeter:
        """The meter, which has read the base."""
        from guardrail.train.shift import ShiftMeter

        return ShiftMeter(
            base,
            self.vectors,
            self.prompts,
            definitions=self.definitions,
            name=model.name,
            layer=self.layer,
            report=report,
        )


def _definition(
    trait: str, options: ShiftOptions, base: ModelOptions, measured: Sequence[str]
) -> TraitDefinition | None:
    """The definition; None for a trait that can do without: its questions are not needed."""
    try:
        return own_definition(trait, options.definition, base.name)
    except TraitError as error:
        if trait in measured and options.prompts is None:
            raise ConfigError(f"{error}; --definition names one, --prompts does without") from error
        return None


def _conversations(path: Path) -> Conversations:
    found = conversations(path)
    if not found:
        raise ConfigError(f"{path}: the file contains no prompt")
    return found


def _relation(path: Path | None) -> Relation | None:
    from guardrail.train.shift import Relation

    return Relation.load(path) if path else None


def _predicted(relation: Relation | None, meter: ShiftMeter, found: Shift) -> dict[str, Prediction]:
    if relation is None:
        return {}
    relation.check(meter.ancestor.fingerprint.weights, found)
    return relation.predictions(found)


def _publish(
    found: Sequence[Shift], predicted: Sequence[dict[str, Prediction]], page: PageOption, as_json: bool
) -> None:
    if page.html is not None:
        from guardrail.report import shift

        shift.page(found, predicted).write(page.html)
    if as_json:
        pairs = zip(found, predicted, strict=True)
        print_json({"shifts": [one.as_json() | {"predictions": score} for one, score in pairs]})
    else:
        print_shift(found, predicted)
    page.tell(as_json)
