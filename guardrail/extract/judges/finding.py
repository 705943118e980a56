"""Finds a judge by name: `openai:MODEL`, `local:MODEL`, `demo`, or a plugin's judge."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.errors import ConfigError
from guardrail.extract.endpoint.messages import EndpointSettings
from guardrail.files.problems import suggest
from guardrail.plugins.protocols import Judge

if TYPE_CHECKING:
    from guardrail.plugins.manager import Plugins

DEMO = "demo"
OPENAI, LOCAL = "openai:", "local:"


def find_judge(
    name: str, plugins: Plugins, *, endpoint: EndpointSettings | None = None, cache: Path | None = None
) -> Judge:
    """The judge with that name. Scores of model judges are cached in the file `cache`, if given.

    Raises ConfigError for an unknown name, ModelError for a local model that cannot be loaded.
    """
    if name == DEMO:
        return _demo()
    for prefix, build in ((OPENAI, _openai), (LOCAL, _local)):
        if name.startswith(prefix) and len(name) > len(prefix):
            return build(name.removeprefix(prefix), endpoint or EndpointSettings(), cache)
    if name in plugins.judges:
        return plugins.judges[name]
    raise ConfigError(f"unknown judge `{name}`{suggest(name, _known(plugins.judges))}")


def _known(provided: Iterable[str]) -> list[str]:
    return [DEMO, f"{OPENAI}MODEL", f"{LOCAL}MODEL", *provided]


def _demo() -> Judge:
    from guardrail.extract.judges.demo import DemoJudge

    return DemoJudge()


def _openai(model: str, endpoint: EndpointSettings, cache: Path | None) -> Judge:
    from guardrail.extract.judges.cache import remembering
    from guardrail.extract.judges.openai import OpenAIJudge

    return remembering(OpenAIJudge(model, endpoint), cache)


def _local(model: str, endpoint: EndpointSettings, cache: Path | None) -> Judge:
    from guardrail.extract.judges.cache import remembering
    from guardrail.extract.judges.local import LocalJudge

    return remembering(LocalJudge.load(model), cache)
