"""The settings of an extraction."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from guardrail.errors import ConfigError
from guardrail.extract.evidence import MINIMUM
from guardrail.extract.moments import POSITIONS
from guardrail.extract.prompts import AS_WRITTEN, SystemPrompts
from guardrail.extract.rollouts import RolloutSettings
from guardrail.files.problems import suggest

STEERING_VECTOR = "steering"
"""A probe that is the unit steering vector itself, as the paper monitors (arXiv 2507.21509, 3.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionSettings:
    """`steering` and `probe` name extraction methods, which are chosen separately.

    Steering vectors come from replies at `position`, probes from prompts at their last token.
    `mixed_samples`: the number of replies to each of the user's own prompts.
    """

    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    systems: SystemPrompts = AS_WRITTEN
    minimum: int = MINIMUM
    position: str = POSITIONS[0]
    steering: str = "difference"
    probe: str = "contrast"
    orthogonalise: bool = False
    mixed_samples: int = 1

    def check(self, methods: Collection[str], traits: int) -> None:
        """Raises ConfigError for unknown methods or positions, and for settings that need more traits."""
        _known("position", self.position, POSITIONS)
        _known("steering method", self.steering, methods)
        _known("probe method", self.probe, {*methods, STEERING_VECTOR})
        if self.orthogonalise and traits < 2:
            raise ConfigError("orthogonalising needs at least two traits")
        if min(self.rollouts.samples, self.mixed_samples, self.rollouts.batch, self.minimum) < 1:
            raise ConfigError("samples, batch and minimum must be 1 or more")


def _known(what: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise ConfigError(f"unknown {what} `{name}`{suggest(name, sorted(names))}")
