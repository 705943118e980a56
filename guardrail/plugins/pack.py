"""One pack: vectors, a calibration, policies and a card for one model, as files in a folder. No code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from guardrail.errors import PluginError
from guardrail.files import json_text
from guardrail.files.problems import suggest
from guardrail.types import Fingerprint

FORMAT, VERSION = "guardrail-pack", 1
CARD, TEXT, TOUR = "pack.json", "CARD.md", "tour.json"
VECTORS, CALIBRATION = "vectors.safetensors", "calibration.json"
AUTO = "auto"
"""The pack that fits the model where vectors or a calibration are named, main policies where policies are."""
LIMIT = 1 << 20
"""Bytes of `pack.json`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A measured number of the card, with its 95 % interval if it has one, and the size of its sample."""

    what: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What `pack.json` says. `files` maps every other file of the pack to its SHA-256."""

    model: str
    certified_on: str
    """The weights with which the numbers were measured, in words; `fingerprint` is theirs."""
    licence: str
    fingerprint: Fingerprint
    traits: tuple[str, ...]
    files: Mapping[str, str]
    numbers: tuple[Number, ...] = ()
    limits: tuple[str, ...] = ()

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of its policy files."""
        paths = [Path(name) for name in self.files]
        return tuple(sorted(path.stem for path in paths if path.parent.name == "policies"))

    @property
    def main(self) -> str | None:
        """The policies named after its first trait, else the first; None without policies."""
        named = [name for name in self.policies if name in self.traits[:1]]
        return next(iter((*named, *self.policies)), None)


class Pack:
    """An installed pack. Its files are read when they are needed, and checked then."""

    def __init__(self, name: str, package: str, distribution: str = "", version: str = "") -> None:
        self.name, self.package = name, package
        self.distribution, self.version = distribution, version

    @cached_property
    def folder(self) -> Path:
        """Where its files are. Raises PluginError."""
        if not self.package.isidentifier():
            raise self.damaged(f"its entry point must name a top-level package, not `{self.package}`")
        found = find_spec(self.package)
        places = list(found.submodule_search_locations or ()) if found else []
        if not places:
            raise self.damaged(f"the package `{self.package}` is missing")
        return Path(places[0])

    @cached_property
    def card(self) -> Card:
        """What it says about itself. Raises PluginError."""
        try:
            content = json_text.read(self.folder / CARD, LIMIT)
            if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
                raise ValueError("not the card of a pack")
            if (version := content.pop("version", None)) != VERSION:
                raise ValueError(f"version {version!r} is not supported; supported: {VERSION}")
            return json_text.validated(Card, content)
        except ValueError as error:
            raise self.damaged(f"{CARD}: {error}") from error

    def file(self, name: str) -> Path:
        """The path of one file. Raises PluginError if it is not what the card says."""
        path = self.folder / name
        if name not in self.card.files:
            raise self.damaged(f"it has no {name}")
        if not path.is_file():
            raise self.damaged(f"{name} is missing")
        if _sha256(path) != self.card.files[name]:
            raise self.damaged(f"{name} is not the file that the card names; install the pack again")
        return path

    def has(self, policies: str) -> bool:
        """Whether it has policies of this name; `auto`: any. False for a pack whose card cannot be read."""
        if self.damage is not None:
            return False
        return bool(self.card.policies) if policies == AUTO else policies in self.card.policies

    def policies(self, name: str) -> Path:
        """The policy file of this name, the main one for `auto`. Raises PluginError."""
        if name == AUTO and self.card.main:
            name = self.card.main
        if name not in self.card.policies:
            known = suggest(name, self.card.policies)
            raise PluginError(f"pack `{self.name}` has no policies `{name}`{known}")
        return self.file(f"policies/{name}.yaml")

    def fits(self, fingerprint: Fingerprint) -> bool:
        """Whether it is for this model; only the weights may be others than those it was certified on."""
        return self.damage is None and set(self.card.fingerprint.differences(fingerprint)) <= {"weights"}

    @property
    def damage(self) -> str | None:
        """Why its card cannot be read, or None."""
        try:
            self.card  # noqa: B018
        except PluginError as error:
            return str(error)
        return None

    def damaged(self, why: str) -> PluginError:
        """The error for a pack that is not whole."""
        return PluginError(f"pack `{self.name}` is damaged: {why}")

    def mismatch(self, fingerprint: Fingerprint) -> str:
        """For which model it was made, and in what this one differs."""
        different = ", ".join(self.card.fingerprint.differences(fingerprint))
        return (
            f"`{self.name}` is for {self.card.model} ({shape(self.card.fingerprint)}; different: {different})"
        )

    def other_weights(self) -> str:
        """The warning for a model whose weights are not those of the card."""
        return (
            f"pack `{self.name}` was certified on other weights ({self.card.certified_on}); its numbers may "
            "not hold for these: run `guardrail calibrate` on your own prompts"
        )


def seal(folder: Path, card: Card) -> None:
    """Write `pack.json` for the files in a folder; `card.files` is replaced by what is there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CARD)
    sums = {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}
    content = {"format": FORMAT, "version": VERSION, **asdict(replace(card, files=sums))}
    (folder / CARD).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def shape(fingerprint: Fingerprint) -> str:
    """A model in words."""
    return f"{fingerprint.architecture}, {fingerprint.layers} layers x {fingerprint.d_model}"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
