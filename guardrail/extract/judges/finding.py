"""Finds a judge by name: `openai:MODEL`, `local:MODEL`, `python:FILE`, a built-in one, or a plugin's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.endpoint.messages import EndpointSettings
from guardrail.errors import ConfigError
from guardrail.files.problems import suggest
from guardrail.plugins.protocols import Judge

if TYPE_CHECKING:
    from guardrail.plugins.manager import Plugins

DEMO = "demo"
OPENAI, LOCAL, PYTHON = "openai:", "local:", "python:"


def find_judge(
    name: str, plugins: Plugins, *, endpoint: EndpointSettings | None = None, cache: Path | None = None
) -> Judge:
    """The judge with that name. Scores of model judges are cached in the file `cache`, if given.

    Raises ConfigError for an unknown name, ModelError for a local model that cannot be loaded.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if name.startswith(PYTHON):
        return _program(Path(name.removeprefix(PYTHON)))
    for prefix, build in ((OPENAI, _openai), (LOCAL, _local)):
        if name.startswith(prefix) and len(name) > len(prefix):
            return build(name.removeprefix(prefix), endpoint or EndpointSettings(), cache)
    if name in plugins.judges:
        return plugins.judges[name]
    raise ConfigError(f"unknown judge `{name}`{suggest(name, _known(plugins.judges))}")


def _known(provided: Iterable[str]) -> list[str]:
    return [*BUILT_IN, f"{OPENAI}MODEL", f"{LOCAL}MODEL", f"{PYTHON}FILE", *provided]


def _demo() -> Judge:
    from guardrail.extract.judges.demo import DemoJudge

    return DemoJudge()


def _refusal_rule() -> Judge:
    from guardrail.extract.judges.rules import RefusalRule

    return RefusalRule()


def _program(path: Path) -> Judge:
    from guardrail.extract.judges.program import ProgramJudge

    return ProgramJudge(path)


def _openai(model: str, endpoint: EndpointSettings, cache: Path | None) -> Judge:
    from guardrail.extract.judges.cache import remembering
    from guardrail.extract.judges.openai import OpenAIJudge

    return remembering(OpenAIJudge(model, endpoint), cache)


def _local(model: str, endpoint: EndpointSettings, cache: Path | None) -> Judge:
    from guardrail.extract.judges.cache import remembering
    from guardrail.extract.judges.local import LocalJudge

    return remembering(LocalJudge.load(model), cache)


BUILT_IN: Mapping[str, Callable[[], Judge]] = {DEMO: _demo, "refusal-rule": _refusal_rule}
"""Judges that need neither a model nor an address."""
