"""The pack is whole, its policies load for its own model, and its card holds every number."""

from pathlib import Path

import pytest

from guardrail.cli.demo.tour import TourPrompt
from guardrail.files import json_text
from guardrail.plugins.manager import Plugins
from guardrail.plugins.pack import TEXT, TOUR, VECTORS
from guardrail.plugins.packs import fitting, named
from guardrail.policy.loading import load
from guardrail.vectors.values import TraitVectors

NAME = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def pack():
    return named(NAME)


def test_every_file_is_the_one_that_the_card_names(pack):
    assert {"policies/harm.yaml", "policies/observe.yaml", TEXT, TOUR} <= set(pack.card.files)
    for name in pack.card.files:
        assert pack.file(name).is_file()
    sizes = [path.stat().st_size for path in pack.folder.rglob("*") if path.is_file()]
    assert sum(sizes) < 3e6


def test_it_has_no_code(pack):
    assert not list(pack.folder.rglob("*.py"))


def test_it_is_for_the_model_that_its_vectors_are_for(pack):
    vectors = TraitVectors.load(pack.file(VECTORS))
    assert vectors.provenance.fingerprint == pack.card.fingerprint
    assert fitting(pack.card.fingerprint).name == NAME
    assert tuple(vectors) == pack.card.traits == ("harm",)


@pytest.mark.parametrize(("policies", "mode"), [("harm", "enforce"), ("observe", "shadow")])
def test_its_policies_load(pack, policies, mode):
    found = load(f"pack:{NAME}/{policies}", pack.card.fingerprint, Plugins())
    assert [rule.mode for rule in found.plan.rules] == [mode]
    assert not any("other weights" in warning for warning in found.plan.warnings)


def test_the_card_says_every_number_with_its_interval(pack):
    text = pack.file(TEXT).read_text(encoding="utf-8")
    assert len(pack.card.numbers) >= 8
    for one in pack.card.numbers:
        assert f"| {one.what} | {one.value:.3f} | {one.low:.3f} to {one.high:.3f} | {one.n} |" in text
    for limit in pack.card.limits:
        assert limit in text


def test_the_tour_can_be_read(pack):
    tour = json_text.validated(tuple[TourPrompt, ...], json_text.read(pack.file(TOUR)))
    assert {prompt.expected for prompt in tour} == {"allow", "block"}


def test_the_entry_point_and_the_policies_name_the_pack(pack):
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'{NAME} = "{pack.package}"' in text
    assert f"vectors: pack:{NAME}\n" in pack.policies("harm").read_text(encoding="utf-8")
