"""Judges for the verbs: found by name, with scores kept in a file if there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.models import load, loading
from guardrail.cli.options import EndpointOptions, ModelOptions

if TYPE_CHECKING:
    from guardrail.extract.endpoint.messages import EndpointSettings
    from guardrail.plugins.protocols import Judge

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
    from guardrail.extract.endpoint.messages import EndpointSettings

    return EndpointSettings(base_url=options.base_url, api_key_env=options.api_key_env)
