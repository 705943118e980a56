"""The judge of `guardrail data screen`: found, checked, and with a rubric for every trait."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.definitions import definitions_of
from guardrail.cli.judges import checked, endpoint_of, find
from guardrail.cli.options import DEMO, JudgeOptions, ModelOptions

if TYPE_CHECKING:
    from guardrail.train.screening import SampleJudge


def sample_judge(
    options: JudgeOptions,
    model: ModelOptions,
    given: Sequence[str] | None,
    traits: Sequence[str],
    folder: Path,
) -> SampleJudge | None:
    """The judge of --judge, None without one. Raises ConfigError for a trait that has no definition."""
    if options.judge is None:
        return None
    from guardrail.train.screening import SampleJudge

    definitions = definitions_of(traits, given or [_definition(trait, model.name) for trait in traits])
    folder.mkdir(parents=True, exist_ok=True)
    judge = find(options.judge, endpoint_of(options), model, folder / "judge-cache.sqlite")
    checked(judge, list(definitions.values()))
    return SampleJudge(judge, {name: one.rubric_for(held_out=True) for name, one in definitions.items()})


def _definition(trait: str, model: str) -> str:
    """The built-in definition; for the built-in model that of its own world."""
    from guardrail import demo

    in_world = demo.TRAITS / f"{trait}.yaml"
    return str(in_world) if model == DEMO and in_world.is_file() else trait
