"""Judges for the verbs: found by name, with scores kept in a file if there is one, checked before work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.console import warn
from guardrail.cli.models import load, loading
from guardrail.cli.options import DEMO, EndpointOptions, JudgeOptions, ModelOptions, settings
from guardrail.cli.progress import doing
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.endpoint.messages import EndpointSettings
    from guardrail.extract.judges.check import JudgeChecks
    from guardrail.plugins.protocols import Judge
    from guardrail.traits import TraitDefinition

LOCAL = "local:"


def find(name: str, endpoint: EndpointSettings, model: ModelOptions, cache: Path | None = None) -> Judge:
    """A judge. `local:MODEL` is loaded on the device and in the dtype of the verb's model.

    Raises ConfigError for an unknown name, ModelError for a local model that cannot be loaded.
    """
    from guardrail.extract import judges
    from guardrail.plugins.manager import Plugins

    if name.startswith(LOCAL) and name != LOCAL:
        return _local(replace(model, name=name.removeprefix(LOCAL)), cache)
    return judges.find_judge(name, Plugins.from_environment(), endpoint=endpoint, cache=cache)


def _local(model: ModelOptions, cache: Path | None) -> Judge:
    with loading(model):
        from guardrail.extract.judges.cache import remembering
        from guardrail.extract.judges.local import LocalJudge

        return remembering(LocalJudge(*load(model), model.name), cache)


def endpoint_of(options: EndpointOptions) -> EndpointSettings:
    """The settings of an endpoint, with the defaults for the rest."""
    from guardrail.endpoint.messages import EndpointSettings

    return settings(EndpointSettings, options)


def chosen(options: JudgeOptions, model: ModelOptions, cache: Path | None = None) -> Judge:
    """The judge of `--judge`, or the built-in model's own for that model. Raises ConfigError if none."""
    if options.judge is None and model.name != DEMO:
        raise ConfigError(
            "no judge: give --judge openai:MODEL, local:MODEL, python:FILE, refusal-rule or a plugin's"
        )
    return find(options.judge or DEMO, endpoint_of(options), model, cache)


def checked(judge: Judge, definitions: Sequence[TraitDefinition]) -> JudgeChecks:
    """Let the judge rate a few pairs before any long work. Raises UselessJudge.

    A judge that cannot tell incoherent replies is only warned about: rules and lexicons cannot.
    """
    from guardrail.extract.judges.check import check_judge

    with doing(f"checking the judge {judge.name} ..."):
        found = check_judge(judge, definitions)
    found.require(one.name for one in definitions)
    for one in found.checks:
        if not one.useful:
            warn(f"the judge {judge.name} cannot tell incoherent replies, so they are kept ({one.finding})")
    missing = {one.name for one in definitions} - {one.metric for one in found.checks}
    if missing:
        warn(f"no pairs of replies to check the judge with: {', '.join(sorted(missing))}; add `examples`")
    return found
