"""Finds installed packs, by their names or by the model that they fit.

An entry point of the group `guardrail.packs` names a top-level package. Only the files in its folder are
read. Nothing of it is imported, so a pack need not be enabled.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from guardrail.errors import PluginError
from guardrail.files.problems import suggest
from guardrail.plugins.pack import AUTO, Pack, shape
from guardrail.types import Fingerprint

GROUP = "guardrail.packs"
PREFIX = "pack:"


def installed() -> list[Pack]:
    """Every installed pack by name; two packages may give one name."""
    points = {(point.name, point.value): point for point in entry_points(group=GROUP)}
    return [_pack(point) for _, point in sorted(points.items())]


def named(name: str) -> Pack:
    """The pack of this name. Raises PluginError if there is none, or two."""
    packs = installed()
    found = [pack for pack in packs if pack.name == name]
    if not found:
        raise PluginError(f"no pack `{name}` is installed{suggest(name, [pack.name for pack in packs])}")
    if len(found) > 1:
        raise PluginError(f"pack `{name}` is installed twice: {', '.join(p.distribution for p in found)}")
    return found[0]


def fitting(fingerprint: Fingerprint, policies: str | None = None) -> Pack:
    """The pack for this model, and with policies of this name if one is given. Raises PluginError.

    Packs that were certified on exactly these weights come before those for other weights of the model.
    """
    packs = installed()
    candidates = [pack for pack in packs if policies is None or pack.has(policies)]
    found = [pack for pack in candidates if pack.fits(fingerprint)]
    exact = [pack for pack in found if pack.card.fingerprint == fingerprint]
    best = exact or found
    if len(best) > 1:
        names = " and ".join(f"`{pack.name}` ({pack.distribution})" for pack in best)
        example = f"{PREFIX}{best[0].name}" + (f"/{policies}" if policies else "")
        raise PluginError(f"several packs fit this model: {names}; name one, as in `{example}`")
    if not best:
        what = f"no installed pack with policies `{policies}`" if policies else "no installed pack"
        raise PluginError(f"{what} fits this model ({shape(fingerprint)}); {_listed(packs, fingerprint)}")
    return best[0]


def check_fit(pack: Pack, fingerprint: Fingerprint) -> None:
    """Raises PluginError for a pack of another model, with the packs that fit."""
    if not pack.fits(fingerprint):
        others = ", ".join(f"`{PREFIX}{p.name}`" for p in installed() if p.fits(fingerprint)) or "none"
        raise PluginError(
            f"pack {pack.mismatch(fingerprint)}, not for this model ({shape(fingerprint)}); "
            f"packs that fit it: {others}"
        )


def is_reference(name: str) -> bool:
    """Whether a name of vectors or a calibration stands for those of a pack: `auto`, or `pack:NAME`."""
    return name == AUTO or name.startswith(PREFIX)


def referred(name: str, fingerprint: Fingerprint | None) -> Pack:
    """The pack that `auto` or `pack:NAME` stands for. Raises PluginError; `auto` needs a fingerprint."""
    if name != AUTO:
        return named(name.removeprefix(PREFIX))
    if fingerprint is None:
        names = ", ".join(f"`{PREFIX}{pack.name}`" for pack in installed()) or "none is installed"
        raise PluginError(f"`{AUTO}` is the pack that fits the model; without a model, name one: {names}")
    return fitting(fingerprint)


def policies(name: str, fingerprint: Fingerprint | None) -> Path | None:
    """The file of `pack:POLICIES` or `pack:PACK/POLICIES`; `auto`: the main ones. Raises PluginError.

    None for the first form without a model: it means the pack that fits.
    """
    pack, slash, wanted = name.removeprefix(PREFIX).rpartition("/")
    if slash:
        return named(pack).policies(wanted)
    if fingerprint is not None:
        return fitting(fingerprint, wanted).policies(wanted)
    _check_offered(wanted)
    return None


def _check_offered(wanted: str) -> None:
    packs = installed()
    if not any(pack.has(wanted) for pack in packs):
        known = sorted({name for pack in packs if pack.damage is None for name in pack.card.policies})
        raise PluginError(
            f"no installed pack has policies `{wanted}`{suggest(wanted, known)}{_damages(packs)}"
        )


def _pack(point: EntryPoint) -> Pack:
    where = point.dist
    return Pack(point.name, point.value, where.name if where else "", where.version if where else "")


def _listed(packs: Sequence[Pack], fingerprint: Fingerprint) -> str:
    whole = [pack.mismatch(fingerprint) for pack in packs if pack.damage is None]
    return f"installed: {'; '.join(whole) or 'none'}{_damages(packs)}"


def _damages(packs: Sequence[Pack]) -> str:
    return "".join(f"; {pack.damage}" for pack in packs if pack.damage)
