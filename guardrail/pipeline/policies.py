"""The policies of a guard: checked against its engine when they are loaded, and at every reload."""

from __future__ import annotations

from functools import partial

from guardrail.engines import Engine, accept, identify
from guardrail.engines.configurations import configuration
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import Source
from guardrail.policy.reload import PolicyWatcher


def watched(source: Source, engine: Engine, plugins: Plugins) -> PolicyWatcher:
    """Raises PolicyError for what is wrong with the policies, and ModelError if the engine refuses them."""
    return PolicyWatcher(
        source,
        partial(identify, engine),
        plugins,
        lambda candidate: accept(engine, candidate.plan),
        partial(configuration, engine),
    )
