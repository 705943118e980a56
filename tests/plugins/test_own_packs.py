"""The packs of this repository: whole, found by their models, with policies that load and full cards."""

import tomllib
from pathlib import Path

import pytest
from packs import own_site, register

from guardrail.cli.demo.tour import TourPrompt
from guardrail.files import json_text
from guardrail.plugins.manager import Plugins
from guardrail.plugins.pack import CALIBRATION, TEXT, TOUR, VECTORS
from guardrail.plugins.packs import fitting, named
from guardrail.policy.loading import load
from guardrail.vectors.values import TraitVectors

PROJECTS = sorted((Path(__file__).parents[2] / "plugins").glob("guardrail-pack-*/pyproject.toml"))


def entry_point(path):
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    ((name, package),) = project["entry-points"]["guardrail.packs"].items()
    return project["name"], name, package


@pytest.fixture(params=PROJECTS, ids=[path.parent.name for path in PROJECTS])
def pack(request, tmp_path, monkeypatch):
    """One of them, where all are installed."""
    site = own_site(tmp_path, monkeypatch)
    for path in PROJECTS:
        distribution, name, package = entry_point(path)
        monkeypatch.syspath_prepend(str(path.parent))
        register(site, name, distribution, package)
    return named(entry_point(request.param)[1])


def test_every_file_is_the_one_that_the_card_names(pack):
    assert {"policies/observe.yaml", CALIBRATION, TEXT, TOUR, VECTORS} <= set(pack.card.files)
    for name in pack.card.files:
        assert pack.file(name).is_file()
    files = [path for path in pack.folder.rglob("*") if path.is_file()]
    assert len(files) == len(pack.card.files) + 1  # the card's own
    assert sum(path.stat().st_size for path in files) < 3e6
    assert not list(pack.folder.rglob("*.py"))


def test_it_is_for_the_model_that_its_vectors_are_for(pack):
    vectors = TraitVectors.load(pack.file(VECTORS))
    assert vectors.provenance.fingerprint == pack.card.fingerprint
    assert fitting(pack.card.fingerprint).name == pack.name
    assert tuple(vectors) == pack.card.traits
    assert pack.card.main == pack.card.traits[0]


@pytest.mark.parametrize(("policies", "mode"), [("auto", "enforce"), ("observe", "shadow")])
def test_its_policies_load(pack, policies, mode):
    found = load(f"pack:{policies}", pack.card.fingerprint, Plugins())
    assert found.path == pack.policies(policies)
    assert f"vectors: pack:{pack.name}\n" in found.path.read_text(encoding="utf-8")
    assert [rule.mode for rule in found.plan.rules] == [mode]
    assert not any("other weights" in warning for warning in found.plan.warnings)


def test_the_card_says_every_number_and_limit(pack):
    text = pack.file(TEXT).read_text(encoding="utf-8")
    assert len(pack.card.numbers) >= 8
    for one in pack.card.numbers:
        between = "" if one.low is None else f"{one.low:.3f} to {one.high:.3f}"
        assert f"| {one.what} | {one.value:.3f} | {between} | {one.n} |" in text
    for limit in pack.card.limits:
        assert limit in text


def test_the_tour_can_be_read(pack):
    tour = json_text.validated(tuple[TourPrompt, ...], json_text.read(pack.file(TOUR)))
    actions = {rule.action for rule in load("pack:auto", pack.card.fingerprint, Plugins()).plan.rules}
    assert {prompt.expected for prompt in tour} == {"allow", *actions}
