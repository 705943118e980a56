"""All of a recommendation, as values that print and save."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from guardrail.errors import ConfigError
from guardrail.interpret.recommending.ranking import Recommendation
from guardrail.interpret.recommending.risks import Risk

NAME = "recommendation.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommended:
    """Layers by trait, and the risk of every component. model: how the user named it."""

    model: str
    traits: tuple[Recommendation, ...]
    risks: tuple[Risk, ...]

    @property
    def layers(self) -> dict[str, int]:
        """The recommended layer of every trait that has one."""
        return {one.trait: one.layer for one in self.traits if one.layer is not None}

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the numbers that are derived from them."""
        traits = [
            asdict(one) | {"layers": [asdict(n) | {"weakest": n.weakest} for n in one.layers]}
            for one in self.traits
        ]
        risks = [asdict(one) | {"name": one.name, "risk": one.risk} for one in self.risks]
        return {"model": self.model, "traits": traits, "risks": risks}

    def save(self, folder: Path) -> None:
        """Write JSON. Raises ConfigError if that fails."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.as_json(), indent=1)
            (folder / NAME).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error
