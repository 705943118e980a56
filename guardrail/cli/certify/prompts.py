"""The prompts whose verdicts `guardrail certify` compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from guardrail.cli.calibrate.benign import BenignFile, prompts_of, read_benign
from guardrail.cli.calibrate.options import slice_files
from guardrail.cli.certify.options import ComparedOptions
from guardrail.cli.options import DEMO, ModelOptions
from guardrail.cli.prompts import InputPrompt, from_json_lines, with_system
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.certify.recording import Prompt


def prompts(given: ComparedOptions, model: ModelOptions, source: dict[str, object]) -> list[Prompt]:
    """Those of the files, else of the built-in model. Raises ConfigError for too few, and for bad lines."""
    from guardrail.certify.comparison import check_count

    found = _from_files(given) if given.benign else _built_in(model, source)
    found += _other(given)
    check_count(len({str(one.messages) for one in found if one.benign and not one.slice}))
    return found


def _from_files(given: ComparedOptions) -> list[Prompt]:
    """The benign sample, and slices. Raises ConfigError for bad lines, and for prompts that they share."""
    from guardrail.certify.recording import Prompt

    found = [
        Prompt(name=place, messages=content, benign=True, slice=name)
        for name, file in _files(given).items()
        for place, content in prompts_of(file, given.system, own=bool(name))
    ]
    _check_apart(found)
    return found


def _files(given: ComparedOptions) -> dict[str, BenignFile]:
    """By the names of their slices; the benign sample itself has none."""
    assert given.benign is not None
    files = {"": read_benign(given.benign)}
    files |= {name: read_benign(path) for name, path in slice_files(given.slices).items()}
    if problems := [problem for file in files.values() for problem in file.problems]:
        raise ConfigError("\n".join(problems))
    return files


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
    from guardrail.plugins.manager import Plugins
    from guardrail.policy.loading import load

    if model.name != DEMO:
        raise ConfigError("no benign prompts: name a file with --benign")
    active = load(source, None, Plugins.from_environment())
    return builtin.prompts({c.trait for rule in active.plan.rules for c in rule.conditions})
