"""Packs: found by name or by the model that they fit; what does not fit or is damaged is named."""

import importlib
import json
import re
import sys
from dataclasses import replace

import pytest
import tiny
from packs import GROUP, install, own_site, rewrite_card
from worlds import FINGERPRINT, VECTORS, calibration, rule, world

from guardrail import Guard
from guardrail.cli import run
from guardrail.errors import ConfigError, PluginError, PolicyError
from guardrail.plugins.manager import Plugins
from guardrail.plugins.pack import seal
from guardrail.plugins.packs import fitting, named
from guardrail.policy.loading import check, load, located, resolve_vectors
from guardrail.policy.reload import PolicyWatcher
from guardrail.testing import tiny_model

OTHER = replace(FINGERPRINT, architecture="OtherForCausalLM", layers=9, d_model=64, tokenizer="other")
FINETUNE = replace(FINGERPRINT, weights="finetuned")
OWN = {"version": 1, "vectors": "auto", "calibration": "auto", "policies": [rule()]}


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages, with vectors and a calibration beside them."""
    world(tmp_path)
    return own_site(tmp_path, monkeypatch)


@pytest.fixture
def put(site):
    def put(name, **keys):
        files = (site.parent / "vectors.safetensors", site.parent / "calibration.json")
        return install(site, name, *files, **keys)

    return put


def refused(source, fingerprint=FINGERPRINT):
    with pytest.raises(PolicyError) as caught:
        load(source, fingerprint, Plugins())
    return str(caught.value)


# --- found --------------------------------------------------------------------------------------------


def test_auto_is_the_pack_that_fits_the_model(put):
    folder = put("small")
    found = load(OWN, FINGERPRINT, Plugins())
    assert found.vectors.sha256 == VECTORS.sha256
    assert found.calibration.sha256 == calibration().sha256
    assert found.plan.warnings == ()
    assert found.pack.folder == folder


def test_policies_of_a_pack_have_names(put):
    folder = put("small")
    path = folder / "policies" / "harm.yaml"
    for name in ("pack:harm", "pack:small/harm"):
        assert load(name, FINGERPRINT, Plugins()).path == path
        with PolicyWatcher(name, lambda: FINGERPRINT, Plugins()) as watcher:
            assert watcher.reload()
            assert watcher.active.path == path
    assert located("pack:small/harm") == path
    assert located("pack:harm") == "pack:harm"


def test_auto_is_the_policies_named_after_the_trait(put):
    folder = put("small", trait="harm", files={"policies/a.yaml": "version: 1"})
    for name in ("pack:auto", "pack:small/auto"):
        assert located(name, lambda: FINGERPRINT) == folder / "policies" / "harm.yaml"


def test_without_such_a_name_auto_is_the_first_policies(put):
    folder = put("small", files={"policies/a.yaml": "version: 1"})
    assert named("small").card.traits != ("harm",)
    assert located("pack:auto", lambda: FINGERPRINT) == folder / "policies" / "a.yaml"


def test_a_pack_without_policies_has_no_main_ones(put):
    folder = put("small")
    (folder / "policies" / "harm.yaml").unlink()
    seal(folder, named("small").card)
    assert "no installed pack with policies `auto` fits this model" in refused("pack:auto")
    assert "pack `small` has no policies `auto`" in refused("pack:small/auto")


def test_a_pack_can_be_named_where_there_is_no_model(put):
    folder = put("small")
    assert resolve_vectors("pack:small") == folder / "vectors.safetensors"
    check(OWN, Plugins())
    with pytest.raises(PluginError, match=r"without a model, name one: `pack:small`"):
        resolve_vectors("auto")


def test_nothing_of_a_pack_is_imported(put, site):
    put("small", files={"__init__.py": "raise SystemExit('imported')"})
    assert load("pack:harm", FINGERPRINT, Plugins()).plan.rules
    assert "guardrail_pack_small" not in sys.modules


def test_an_own_calibration_goes_with_the_vectors_of_a_pack(put, site):
    put("small")
    own = OWN | {"calibration": str(site.parent / "calibration.json")}
    assert load(own, FINGERPRINT, Plugins()).calibration is not None


# --- other models -------------------------------------------------------------------------------------


def test_other_weights_of_the_model_load_with_a_warning(put):
    put("small")
    found = load("pack:harm", FINETUNE, Plugins())
    (warning,) = found.plan.warnings
    assert "pack `small` was certified on other weights (bfloat16 from the hub)" in warning
    assert "guardrail calibrate" in warning


def test_the_pack_of_exactly_these_weights_comes_first(put, site):
    put("small")
    folder = put("tuned")
    rewrite_card(folder, fingerprint=json.loads(json.dumps(_fields(FINETUNE))))
    assert fitting(FINGERPRINT).name == "small"
    assert fitting(FINETUNE).name == "tuned"


def test_a_calibration_of_other_weights_that_is_from_no_pack_is_still_refused(put, site):
    put("small")
    own = OWN | {"calibration": str(site.parent / "calibration.json")}
    assert "calibration made for another model (different: weights)" in refused(own, FINETUNE)


@pytest.mark.parametrize("source", [OWN, "pack:harm"])
def test_another_model_is_named_with_what_is_installed(put, source):
    put("small")
    said = refused(source, OTHER)
    assert "fits this model (OtherForCausalLM, 9 layers x 64)" in said
    assert f"`small` is for maker/model ({FINGERPRINT.architecture}, 4 layers x 32; different: arch" in said


def test_a_named_pack_of_another_model_lists_those_that_fit(put):
    folder = put("small")
    put("other")
    rewrite_card(folder, fingerprint=_fields(OTHER))
    said = refused(OWN | {"vectors": "pack:small"})
    assert "pack `small` is for maker/model (OtherForCausalLM" in said
    assert "packs that fit it: `pack:other`" in said


def test_another_template_is_another_model_unless_it_is_accepted(put):
    put("small")
    template = replace(FINGERPRINT, chat_template="mine")
    assert "different: chat_template" in refused("pack:harm", template)
    named_pack = OWN | {"vectors": "pack:small", "calibration": "pack:small"}
    accepted = load(named_pack | {"allow_model_mismatch": True}, template, Plugins())
    assert any("chat_template" in warning for warning in accepted.plan.warnings)


# --- missing, ambiguous, damaged ----------------------------------------------------------------------


def test_without_packs_that_is_what_it_says(site):
    assert "no installed pack fits this model" in refused(OWN)
    assert "installed: none" in refused(OWN)
    with pytest.raises(PolicyError, match="no installed pack has policies `harm`"):
        located("pack:harm")


def test_misspelt_names_are_told(put):
    put("small")
    with pytest.raises(PluginError, match="no pack `smal` is installed; did you mean `small`"):
        named("smal")
    assert "no installed pack with policies `harms` fits" in refused("pack:harms")
    assert "pack `small` has no policies `harms`; did you mean `harm`" in refused("pack:small/harms")


def test_two_packs_for_one_model_must_be_told_apart(put):
    put("one")
    put("two")
    said = refused("pack:harm")
    assert "several packs fit this model: `one` (guardrail-pack-one) and `two` (guardrail-pack-two)" in said
    assert "name one, as in `pack:one/harm`" in said
    assert load("pack:two/harm", FINGERPRINT, Plugins()).pack.name == "two"


def test_two_packs_of_one_name_are_named(put):
    put("small")
    put("small", distribution="guardrail-pack-copy")
    with pytest.raises(PluginError, match=r"`small` is installed twice: guardrail-pack-copy, guardrail-pack"):
        named("small")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "vectors.safetensors").write_bytes(b"x"), "vectors.safetensors is not the"),
        (lambda folder: (folder / "calibration.json").unlink(), "calibration.json is missing"),
        (lambda folder: (folder / "pack.json").unlink(), "pack.json: cannot be read"),
        (lambda folder: (folder / "pack.json").write_text("{"), "pack.json: not JSON"),
        (lambda folder: rewrite_card(folder, version=9), "pack.json: version 9 is not supported"),
        (lambda folder: rewrite_card(folder, fingerprint={}), "pack.json: `fingerprint.architecture`"),
        (lambda folder: rewrite_card(folder, files={"policies/harm.yaml": ""}), "it has no vectors.safe"),
        (lambda folder: folder.rename(folder.with_name("gone")), "package `guardrail_pack_small` is missing"),
    ],
)
def test_a_damaged_pack_is_named(put, harm, said):
    harm(put("small"))
    importlib.invalidate_caches()
    assert re.search(f"pack `small` is damaged: .*{re.escape(said)}", refused(OWN))


def test_a_damaged_pack_is_in_nobodys_way(put):
    (put("broken") / "pack.json").write_text("{")
    put("small")
    assert load("pack:harm", FINGERPRINT, Plugins()).pack.name == "small"


def test_an_entry_point_that_names_no_package_is_damage(put, site):
    put("small")
    (site / "guardrail_pack_small-1.0.dist-info" / "entry_points.txt").write_text(
        f"[{GROUP}]\nsmall = json.decoder\n"
    )
    importlib.invalidate_caches()
    assert "must name a top-level package, not `json.decoder`" in named("small").damage


# --- the command line ---------------------------------------------------------------------------------


def test_a_list_without_packs_says_how_to_get_one(capsys, monkeypatch):
    monkeypatch.setattr("guardrail.plugins.packs.installed", list)
    assert run(["packs", "list"]) == 0
    assert "no packs are installed" in capsys.readouterr().out


def test_packs_are_listed_and_shown(put, capsys):
    put("small", files={"CARD.md": "# A card\n"})
    (put("broken") / "pack.json").write_text("{")
    assert run(["packs", "list"]) == 0
    listed = capsys.readouterr().out
    assert "maker/model" in listed
    assert "pack `broken` is damaged: pack.json: not JSON" in listed
    assert run(["packs", "show", "small"]) == 0
    shown = capsys.readouterr().out
    for text in ("certified on: bfloat16 from the hub", "AUROC", "limit: English only", "# A card"):
        assert text in shown


def test_packs_as_json(put, capsys):
    folder = put("small")
    assert run(["packs", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["pack"], row["policies"], row["damage"]) == ("small", ["harm"], None)
    assert run(["packs", "show", "small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["card"]["numbers"][0]["low"] == 0.8
    (folder / "vectors.safetensors").write_bytes(b"x")
    assert run(["packs", "show", "small"]) == 2
    assert "vectors.safetensors is not the file that the card names" in capsys.readouterr().err


def test_calibrate_needs_the_name_of_a_pack(put, tmp_path, capsys):
    put("small")
    with pytest.raises(ConfigError, match="name the pack as well"):
        _read_for_calibration("pack:harm")
    assert _read_for_calibration("pack:small/harm").vectors.name == "vectors.safetensors"


def _read_for_calibration(name):
    from guardrail.calibrate.policy_file import PolicyFile

    return PolicyFile.read(name, Plugins())


def _fields(fingerprint):
    return {name: getattr(fingerprint, name) for name in fingerprint.__slots__}


def test_a_guard_takes_the_policies_of_its_models_pack(site):
    model = tiny_model()
    tiny.write_vectors(site.parent, model)
    install(site, "tiny", site.parent / "vectors.safetensors", site.parent / "calibration.json")
    with Guard(model, tiny.TOKENIZER, "pack:harm") as guard:
        assert guard.active.pack.name == "tiny"
        assert guard.check("hello world").decision.status == "evaluated"
        assert guard.reload()
    with Guard(tiny_model(seed=5), tiny.TOKENIZER, "pack:harm") as guard:
        assert "certified on other weights" in guard.check("hello world").decision.warnings[0]
