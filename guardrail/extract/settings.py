"""What an extraction does, as data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from guardrail.errors import ConfigError
from guardrail.extract.filter import MINIMUM
from guardrail.extract.moments import POSITIONS
from guardrail.extract.prompts import AS_WRITTEN, SystemPrompts
from guardrail.extract.rollouts import RolloutSettings
from guardrail.files.problems import suggest

STEERING_VECTOR = "steering"
"""As a probe: the unit steering vector itself, which is how the paper monitors (arXiv 2507.21509, 3.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionSettings:
    """`steering` and `probe` name extraction methods: what steers and what detects are chosen apart.

    Steering is made from replies at `position`, the probe from prompts at their last token. `mixed_samples`:
    replies to each prompt of the user's own.
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
        """Raises ConfigError for a method or a position that is not there, and for what needs more traits."""
        _known("position", self.position, POSITIONS)
        _known("steering method", self.steering, methods)
        _known("probe method", self.probe, {*methods, STEERING_VECTOR})
        if self.orthogonalise and traits < 2:
            raise ConfigError("orthogonalising needs at least two traits")
        if min(self.rollouts.samples, self.mixed_samples, self.rollouts.batch, self.minimum) < 1:
            raise ConfigError("samples, batch and minimum are 1 or more")


def _known(what: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise ConfigError(f"unknown {what} `{name}`{suggest(name, sorted(names))}")
