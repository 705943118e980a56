"""Packs for tests: a folder of files and an entry point, as pip would install them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from guardrail.plugins import packs
from guardrail.plugins.pack import Card, Number, seal
from guardrail.types import Fingerprint
from guardrail.vectors.values import TraitVectors

GROUP = "guardrail.packs.of-tests"
"""Of entry points, so that packs which are really installed are in nobody's way."""
POLICIES = """
version: 1
vectors: pack:{name}
calibration: pack:{name}
policies:
  - {{id: harm, trait: {trait}, threshold: 2.0, action: block}}
"""


def own_site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, which holds all the packs that there are."""
    site = folder / "site"
    site.mkdir()
    monkeypatch.setattr(packs, "GROUP", GROUP)
    monkeypatch.syspath_prepend(str(site))
    return site


def install(
    site: Path,
    name: str,
    vectors: Path,
    calibration: Path,
    *,
    distribution: str = "",
    files: Mapping[str, str] | None = None,
    trait: str = "",
) -> Path:
    """The folder of a new pack for the model of these vectors."""
    distribution = distribution or f"guardrail-pack-{name}"
    package = distribution.replace("-", "_")
    folder = site / package
    (folder / "policies").mkdir(parents=True)
    (folder / "vectors.safetensors").write_bytes(vectors.read_bytes())
    (folder / "calibration.json").write_bytes(calibration.read_bytes())
    loaded = TraitVectors.load(vectors)
    trait = trait or next(iter(loaded))
    (folder / "policies" / "harm.yaml").write_text(POLICIES.format(name=name, trait=trait))
    for path, text in (files or {}).items():
        (folder / path).write_text(text)
    seal(folder, card(loaded.provenance.fingerprint, trait))
    register(site, name, distribution, package)
    return folder


def card(fingerprint: Fingerprint, trait: str = "harm") -> Card:
    return Card(
        model="maker/model",
        certified_on="bfloat16 from the hub",
        licence="Apache-2.0",
        fingerprint=fingerprint,
        traits=(trait,),
        files={},
        numbers=(Number(what="AUROC", value=0.9, n=100, low=0.8, high=0.95),),
        limits=("English only",),
    )


def register(site: Path, name: str, distribution: str, package: str) -> None:
    """Installs an entry point."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {package}\n")
    importlib.invalidate_caches()


def rewrite_card(folder: Path, **changes: object) -> None:
    """Change keys of the card and nothing else."""
    path = folder / "pack.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
