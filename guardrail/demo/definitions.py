"""The trait definitions of the demo world: what extraction contrasts, kept as YAML files with a hash."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from ruamel.yaml import YAML

from guardrail.demo import TRAITS
from guardrail.demo.world import TRAITS as NAMES


@dataclass(frozen=True, slots=True)
class TraitDefinition:
    """A trait, the system prompts that ask for it and that forbid it, and the questions to ask."""

    name: str
    description: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    questions: tuple[str, ...]
    sha256: str
    """The hash of the file."""


def load_trait(name: str) -> TraitDefinition:
    """One definition of the demo world."""
    raw = (TRAITS / f"{name}.yaml").read_bytes()
    data: Mapping[str, str | list[str]] = YAML(typ="safe", pure=True).load(raw.decode())
    lists = {key: tuple(data[key]) for key in ("positive", "negative", "questions")}
    description = str(data["description"])
    return TraitDefinition(str(data["name"]), description, **lists, sha256=hashlib.sha256(raw).hexdigest())


def load_traits() -> dict[str, TraitDefinition]:
    """All definitions of the demo world, by name."""
    return {name: load_trait(name) for name in NAMES}
