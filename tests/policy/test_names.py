"""Names of shipped policies, and what is reported before there is a model or vectors."""

import re
from pathlib import Path

import pytest
from worlds import FINGERPRINT, loaded, policies, rule, world

from guardrail import demo
from guardrail.cli.models import read_fingerprint
from guardrail.errors import PolicyError
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import load, located, shipped_policies
from guardrail.policy.reload import PolicyWatcher


@pytest.fixture
def folder(tmp_path):
    return world(tmp_path)


def keys(caught):
    return [problem.key for problem in caught.value.problems]


def test_shipped_policies_have_names(tmp_path, monkeypatch):
    assert sorted(shipped_policies()) == ["chatbot", "observe", "strict"]
    monkeypatch.chdir(tmp_path)
    fingerprint = read_fingerprint(demo.FINGERPRINT)
    named = load("strict", fingerprint, Plugins())
    assert named.path == shipped_policies()["strict"]
    with PolicyWatcher("strict", lambda: fingerprint, Plugins()) as watcher:
        assert watcher.sha256 == named.sha256
        assert watcher.reload()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("chatbott", "chatbott: no shipped policies have this name; did you mean `chatbot`?"),
        ("x", "known: cha"),
    ],
)
def test_a_misspelt_name_is_told(name, said):
    with pytest.raises(PolicyError, match=re.escape(said)):
        load(name, FINGERPRINT, Plugins())


def test_paths_and_files_without_a_suffix_are_no_names(tmp_path, monkeypatch):
    monkeypatch.chdir(world(tmp_path))
    for name in ("mine", "strict"):
        (tmp_path / name).write_text("version: 1\nallow_empty: true\nvectors: vectors.safetensors\n")
    assert load("mine", FINGERPRINT, Plugins()).policies.allow_empty
    assert load("./strict", FINGERPRINT, Plugins()).policies.allow_empty
    assert located("strict") == shipped_policies()["strict"]
    assert located(Path("strict")) == Path("strict")


def test_without_a_model_the_vectors_stand_in_for_it(folder):
    rules = policies(folder, rule(layer=9, mode="on"), rule(id="q", stage="response", timeout_ms=5, layer=7))
    with pytest.raises(PolicyError) as caught:
        load(rules, None, Plugins())
    assert set(keys(caught)) == {
        *("policies[0].layer", "policies[0].mode", "policies[1].layer", "policies[1].timeout_ms")
    }


def test_layers_and_stages_are_reported_with_missing_vectors(folder):
    rules = policies(
        folder,
        rule(layer=9),
        rule(id="q", stage="response", timeout_ms=5, trait="evli"),
        vectors="none.safetensors",
    )
    with pytest.raises(PolicyError) as caught:
        load(rules, FINGERPRINT, Plugins())
    assert keys(caught) == ["vectors", "policies[0].layer", "policies[1].timeout_ms"]
    with pytest.raises(PolicyError) as caught:
        load(rules, None, Plugins())
    assert keys(caught) == ["vectors", "policies[1].timeout_ms"]


def test_the_layer_of_an_unknown_trait_is_checked_too(folder):
    with pytest.raises(PolicyError) as caught:
        loaded(folder, rule(trait="evli", layer=9))
    assert keys(caught) == ["policies[0].trait", "policies[0].layer"]
