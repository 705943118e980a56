"""Which definition a trait has: that of a file or folder, of the demo model's world, or the built-in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.options import DEMO
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.traits import TraitDefinition


def definition_of(trait: str, given: Path | None, model: str) -> TraitDefinition:
    """A trait's definition for a model; `given` is a file, or a folder with a file for each trait.

    Raises TraitError if there is none.
    """
    from guardrail import demo
    from guardrail.traits import load_definition

    in_world = demo.TRAITS / f"{trait}.yaml"
    if given is None and model == DEMO and in_world.is_file():
        return load_definition(in_world)
    if given is not None and given.is_dir():
        return load_definition(given / f"{trait}.yaml")
    return load_definition(given or trait)


def own_definition(trait: str, given: Path | None, model: str) -> TraitDefinition:
    """As `definition_of`, but a file of another trait is passed over. Raises TraitError."""
    from guardrail.traits import load_definition

    if given is not None and not given.is_dir() and load_definition(given).name != trait:
        given = None
    return definition_of(trait, given, model)


def definitions_of(names: Sequence[str], given: Sequence[str]) -> Mapping[str, TraitDefinition]:
    """The definitions of these traits. Raises ConfigError if one is missing."""
    from guardrail.traits import load_definition

    found = {one.name: one for one in map(load_definition, given)}
    if missing := [name for name in names if name not in found]:
        raise ConfigError(f"there is no definition of `{missing[0]}`; give --definition FILE")
    return {name: found[name] for name in names}
