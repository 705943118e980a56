"""Loading policies as a whole, and keeping the last good ones while the file changes."""

import os
import re
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from patience import wait_for
from policy_files import dump_policies
from worlds import FINGERPRINT, VECTORS, benign, calibration, loaded, policies, rule, world

from guardrail import demo
from guardrail.calibration.values import Calibration
from guardrail.errors import ConfigError, PluginError, PolicyError
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import (
    default_policies,
    load,
    resolve_calibration,
    resolve_vectors,
    shipped_policies,
)
from guardrail.policy.model import PolicySet
from guardrail.policy.reload import PolicyWatcher
from guardrail.types import Probe


@pytest.fixture
def folder(tmp_path):
    return world(tmp_path)


def write(folder, *rules, name="policy.yaml", **keys):
    """A policy file; returns its path."""
    path = folder / name
    text = dump_policies(PolicySet.model_validate(policies(folder, *rules, **keys)))
    path.write_text(text)
    return path


def source(path, **keys):
    return PolicyWatcher(path, lambda: FINGERPRINT, Plugins(), **keys)


def messages(caught):
    return [(problem.key, problem.message) for problem in caught.value.problems]


@pytest.mark.parametrize("given", [5.0, b"chatbot", {"chatbot"}, ("chatbot",), ["chatbot"]])
def test_what_cannot_be_policies_is_refused_in_words(given):
    with pytest.raises(ConfigError, match="policies are the name or path of a file"):
        source(given)


def test_a_mapping_a_file_and_a_policy_set_load_the_same(folder):
    path = write(folder, rule())
    results = [
        load(given, FINGERPRINT, Plugins())
        for given in (
            path,
            str(path),
            policies(folder, rule()),
            PolicySet.model_validate(policies(folder, rule())),
        )
    ]
    assert len({result.sha256 for result in results}) == 1
    assert [result.path for result in results] == [path, path, None, None]
    assert results[0].vectors.sha256 == VECTORS.sha256


def test_the_hash_ignores_layout_and_comments(folder):
    path = write(folder, rule())
    before = load(path, FINGERPRINT, Plugins()).sha256
    path.write_text("# a comment\n\n" + path.read_text())
    assert load(path, FINGERPRINT, Plugins()).sha256 == before


def test_paths_are_relative_to_the_policy_file(folder, monkeypatch):
    (folder / "inner").mkdir()
    path = write(folder, rule(), name="inner/policy.yaml", vectors="../vectors.safetensors")
    monkeypatch.chdir("/")
    assert load(path, FINGERPRINT, Plugins()).vectors.sha256 == VECTORS.sha256


def test_vectors_of_another_model_are_refused(folder):
    other = replace(FINGERPRINT, weights="other")
    with pytest.raises(PolicyError) as caught:
        load(policies(folder, rule()), other, Plugins())
    assert [key for key, _ in messages(caught)] == ["vectors", "calibration"]
    assert "different: weights" in messages(caught)[0][1]


def test_a_finetune_is_accepted_on_request_and_every_decision_says_so(folder):
    other = replace(FINGERPRINT, weights="other")
    result = load(policies(folder, rule(), allow_model_mismatch=True), other, Plugins())
    assert len([w for w in result.plan.warnings if w.startswith("allow_model_mismatch")]) == 2


def test_another_size_is_refused_even_on_request(folder):
    other = replace(FINGERPRINT, d_model=64)
    with pytest.raises(PolicyError, match="made for a model of 4 layers x 32, this model has 4 x 64"):
        load(policies(folder, rule(), allow_model_mismatch=True), other, Plugins())


def test_a_calibration_of_other_vectors_is_refused(folder):
    replace(calibration(), vectors_sha256="0").save(folder / "calibration.json")
    with pytest.raises(PolicyError, match="made with another vector file"):
        loaded(folder, rule())


def test_a_damaged_vector_file_is_a_problem_at_its_key(folder):
    (folder / "vectors.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(PolicyError, match=r"vectors: .*cannot be read as safetensors"):
        loaded(folder, rule())


def test_an_uncalibrated_enforced_policy_warns(folder):
    result = loaded(folder, rule(threshold={"raw": 1.0}), calibration=None)
    assert result.plan.warnings == ("p: enforced without a calibration; its false-positive rate is unknown",)


def test_reload_swaps_the_whole_set(folder):
    path = write(folder, rule())
    policies_in_use = source(path)
    before = policies_in_use.active
    write(folder, rule(), rule(id="q"))
    assert policies_in_use.reload()
    assert [r.id for r in policies_in_use.active.plan.rules] == ["p", "q"]
    assert [r.id for r in before.plan.rules] == ["p"]
    assert policies_in_use.sha256 != before.sha256
    assert (policies_in_use.reloads, policies_in_use.failures, policies_in_use.error) == (1, 0, None)


@pytest.mark.parametrize("text", ["", "version: [", "version: 3", "version: 1\npolicies: [{id: a}]"])
def test_a_bad_file_keeps_the_last_good_one(folder, text):
    path = write(folder, rule())
    policies_in_use = source(path)
    before, time_before = policies_in_use.active, policies_in_use.loaded_at
    path.write_text(text)
    assert not policies_in_use.reload()
    assert policies_in_use.active is before
    assert policies_in_use.loaded_at == time_before
    assert isinstance(policies_in_use.error, PolicyError)
    assert policies_in_use.failures == 1
    write(folder, rule(id="repaired"))
    assert policies_in_use.reload()
    assert policies_in_use.error is None


def test_a_file_that_was_deleted_keeps_the_last_good_one(folder):
    path = write(folder, rule())
    policies_in_use = source(path)
    path.unlink()
    assert not policies_in_use.reload()
    assert policies_in_use.active.plan.rules[0].id == "p"


def test_the_first_load_raises(folder):
    with pytest.raises(PolicyError):
        source(write(folder, rule(trait="nobody")))


def test_a_candidate_can_be_refused(folder):
    def accept(candidate):
        if candidate.plan.steered_layers:
            raise ConfigError("this engine cannot steer")

    path = write(folder, rule())
    policies_in_use = source(path, accept=accept)
    write(folder, rule(action={"steer": {"operator": "ablate"}}))
    assert not policies_in_use.reload()
    assert str(policies_in_use.error) == "this engine cannot steer"
    assert policies_in_use.active.plan.rules[0].action == "block"


def active(policies_in_use):
    return [r.id for r in policies_in_use.active.plan.rules]


def test_watching_notices_a_rename_over_the_file(folder):
    path = write(folder, rule())
    with source(path) as policies_in_use:
        policies_in_use.watch(0.02)
        os.replace(write(folder, rule(id="new"), name="candidate.yaml"), path)
        assert wait_for(lambda: active(policies_in_use) == ["new"])


def test_watching_notices_a_symlink_swap(folder):
    write(folder, rule(id="one"), name="one.yaml")
    write(folder, rule(id="two"), name="two.yaml")
    path = folder / "current.yaml"
    path.symlink_to("one.yaml")
    with source(path) as policies_in_use:
        policies_in_use.watch(0.02)
        (folder / "next.yaml").symlink_to("two.yaml")
        os.replace(folder / "next.yaml", path)
        assert wait_for(lambda: active(policies_in_use) == ["two"])


def test_watching_notices_a_new_calibration(folder):
    with source(write(folder, rule(threshold={"fpr": 0.01}))) as policies_in_use:
        policies_in_use.watch(0.02)
        before = policies_in_use.active.plan.rules[0].conditions[0].raw
        table = {t: {row: benign(99, 1999) for row in range(1, 5)} for t in VECTORS}
        replace(calibration(), probes=table).save(folder / "calibration.json")
        assert wait_for(lambda: policies_in_use.active.plan.rules[0].conditions[0].raw != before)


def test_watching_tries_a_bad_file_once_and_goes_on(folder):
    path = write(folder, rule())
    with source(path) as policies_in_use:
        policies_in_use.watch(0.01)
        path.write_text("version: [")
        assert wait_for(lambda: policies_in_use.failures == 1)
        time.sleep(0.1)
        assert policies_in_use.failures == 1
        write(folder, rule(id="good"))
        assert wait_for(lambda: active(policies_in_use) == ["good"])


def test_close_ends_the_watching_thread(folder):
    policies_in_use = source(write(folder, rule()))
    policies_in_use.watch(60.0)
    policies_in_use.close()
    assert not [t for t in threading.enumerate() if t.name == "guardrail-policies"]


def test_only_files_can_be_watched(folder):
    with pytest.raises(ConfigError, match="only a policy file"):
        source(policies(folder, rule())).watch()


def test_readers_never_see_half_a_set(folder):
    path = write(folder, rule())
    policies_in_use, seen = source(path), []
    done = threading.Event()

    def read():
        while not done.is_set():
            taken = policies_in_use.active
            seen.append(taken.sha256 == taken.plan.policy_sha256)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(10):
        write(folder, rule(id=f"p{i}"))
        assert policies_in_use.reload()
    done.set()
    reader.join()
    assert all(seen)
    assert seen


def test_the_calibration_is_optional_and_loaded_as_written(folder):
    assert loaded(folder, rule(threshold={"raw": 1.0}), calibration=None).calibration is None
    assert loaded(folder, rule()).calibration == Calibration.load(folder / "calibration.json")


def test_an_unknown_plugin_is_a_problem_at_its_place(folder):
    with pytest.raises(PolicyError) as caught:
        loaded(folder, rule(mode="on"), plugins=["nowhere"])
    assert [key for key, _ in messages(caught)] == ["policies[0].mode", "plugins[0]"]
    assert "plugin `nowhere` is not installed" in str(caught.value)


def test_the_built_in_model_comes_with_policies_and_others_do_not():
    assert default_policies("demo") == shipped_policies()["chatbot"]
    with pytest.raises(ConfigError, match="no policies were given"):
        default_policies("another/model")


@pytest.mark.parametrize(
    ("resolve", "built_in"), [(resolve_vectors, demo.VECTORS), (resolve_calibration, demo.CALIBRATION)]
)
def test_names_of_files_are_resolved_beside_the_policy_file(resolve, built_in, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve("demo") == resolve("demo", Path("/policies")) == built_in
    assert resolve("a.json") == Path("a.json")
    assert resolve("a.json", Path("/policies")) == Path("/policies/a.json")
    assert resolve("/elsewhere/a.json", Path("/policies")) == Path("/elsewhere/a.json")
    assert resolve("~/a.json", Path("/policies")) == Path("/home/somebody/a.json")


def test_a_missing_calibration_beside_the_file_is_looked_for_there(folder):
    (folder / "inner").mkdir()
    path = write(folder, rule(), name="inner/policy.yaml", calibration="../calibration.json")
    assert load(path, FINGERPRINT, Plugins()).calibration == calibration()
    write(folder, rule(), name="inner/policy.yaml", calibration="nowhere.json")
    with pytest.raises(PolicyError) as caught:
        load(path, FINGERPRINT, Plugins())
    ((key, message),) = messages(caught)
    assert key == "calibration"
    assert str(folder / "inner" / "nowhere.json") in message


def test_what_is_wrong_with_a_policy_is_said_even_if_the_vectors_are_missing(folder):
    (folder / "vectors.safetensors").unlink()
    with pytest.raises(PolicyError) as caught:
        loaded(folder, rule(), rule(), rule(id="q", trait="anything", action="blok"))
    assert [key for key, _ in messages(caught)] == ["vectors", "policies[1].id", "policies[2].action"]


def test_a_missing_calibration_hides_no_problem_and_adds_none(folder):
    (folder / "calibration.json").unlink()
    with pytest.raises(PolicyError) as caught:
        loaded(folder, rule(threshold={"fpr": 0.01}), rule(id="q", action="blok"))
    assert [key for key, _ in messages(caught)] == ["calibration", "policies[1].action"]


def test_a_policy_set_that_does_not_compile_is_a_problem_at_its_place(folder):
    given = PolicySet.model_validate(policies(folder, rule(), rule(id="q", trait="vice")))
    with pytest.raises(PolicyError) as caught:
        load(given, FINGERPRINT, Plugins())
    assert [key for key, _ in messages(caught)] == ["policies[1].trait"]


def test_only_the_plugins_that_there_are_count(folder):
    with pytest.raises(PolicyError) as caught:
        loaded(folder, rule(), plugins=["nowhere", "nobody"])
    assert [key for key, _ in messages(caught)] == ["plugins[0]", "plugins[1]"]


def recent(moment):
    return timedelta(0) <= datetime.now(UTC) - moment < timedelta(seconds=30)


def test_a_watcher_says_when_and_how_often_it_loaded(folder):
    path = write(folder, rule())
    policies_in_use = source(path)
    first = policies_in_use.loaded_at
    assert recent(first)
    assert (policies_in_use.error, policies_in_use.reloads, policies_in_use.failures) == (None, 0, 0)
    assert policies_in_use.reload()
    assert policies_in_use.reload()
    assert first < policies_in_use.loaded_at
    assert recent(policies_in_use.loaded_at)
    path.write_text("version: [")
    assert [policies_in_use.reload() for _ in range(3)] == [False] * 3
    assert (policies_in_use.reloads, policies_in_use.failures) == (2, 3)
    assert isinstance(policies_in_use.error, PolicyError)


def test_watching_an_unchanged_file_reloads_nothing(folder):
    (folder / "inner").mkdir()
    relative = {"vectors": "../vectors.safetensors", "calibration": "../calibration.json"}
    with source(write(folder, rule(), name="inner/policy.yaml", **relative)) as policies_in_use:
        policies_in_use.watch(0.01)
        time.sleep(0.2)
        assert (policies_in_use.reloads, policies_in_use.failures) == (0, 0)


@pytest.mark.parametrize("name", ["vectors.safetensors", "calibration.json"])
def test_watching_notices_files_that_are_named_beside_the_policy_file(folder, name):
    (folder / "inner").mkdir()
    relative = {"vectors": "../vectors.safetensors", "calibration": "../calibration.json"}
    with source(write(folder, rule(), name="inner/policy.yaml", **relative)) as policies_in_use:
        policies_in_use.watch(0.02)
        (folder / name).write_bytes(b"damaged")
        assert wait_for(lambda: policies_in_use.failures == 1)
        assert active(policies_in_use) == ["p"]


def watching():
    return [thread for thread in threading.enumerate() if thread.name == "guardrail-policies"]


def test_the_thread_that_watches_does_not_keep_the_program_running(folder):
    with source(write(folder, rule())) as policies_in_use:
        policies_in_use.watch(60.0)
        policies_in_use.watch(60.0)
        assert [thread.daemon for thread in watching()] == [True]
    assert watching() == []


def test_a_watcher_hands_the_first_policies_to_whoever_may_refuse_them(folder):
    seen = []
    policies_in_use = source(write(folder, rule()), accept=seen.append)
    assert seen == [policies_in_use.active]


@pytest.mark.parametrize(("missing", "place"), [("id", ".id"), ("action", ".action"), ("threshold", "")])
def test_a_policy_with_a_key_missing_is_still_checked_against_the_model(folder, missing, place):
    wrong = {key: value for key, value in rule(trait="vice").items() if key != missing}
    with pytest.raises(PolicyError) as caught:
        loaded(folder, rule(id="fine"), wrong)
    assert [key for key, _ in messages(caught)] == [f"policies[1]{place}", "policies[1].trait"]


def problem_keys(folder, *rules, **keys):
    with pytest.raises(PolicyError) as caught:
        loaded(folder, *rules, **keys)
    return [key for key, _ in messages(caught)]


def respelt(old, new, **keys):
    return {new if key == old else key: value for key, value in rule(**keys).items()}


def test_what_is_wrong_under_a_misspelt_key_is_told_under_the_key_in_the_file(folder):
    wrong = [
        respelt("trait", "trit", trait="vice"),
        respelt("when", "wen", id="q", when={"min_turns": 0}),
        respelt(
            "all_of",
            "all_off",
            id="r",
            threshold=None,
            trait=None,
            layer="auto",
            all_of=[{"trait": "evil", "layer": 9, "threshold": 1.0}],
        ),
    ]
    assert sorted(problem_keys(folder, *wrong)) == [
        "policies[0].trit",
        "policies[0].trit",
        "policies[1].wen",
        "policies[1].wen.min_turns",
        "policies[2].all_off",
        "policies[2].all_off[0].layer",
    ]


def test_a_misspelt_key_of_the_file_is_read_as_what_was_meant(folder):
    assert problem_keys(folder, rule(), defautls={"mode": "on"}) == ["defautls", "defautls.mode"]


@pytest.mark.parametrize("key", ["vectors", "calibration"])
def test_a_file_that_is_not_named_properly_is_one_problem(folder, key):
    assert problem_keys(folder, rule(), **{key: 3}) == [key]


def test_nothing_is_checked_against_what_stands_in_for_a_file(folder):
    assert problem_keys(folder, rule(trait="of-my-own"), vectors=3) == ["vectors"]
    assert problem_keys(folder, rule(threshold={"fpr": 0.01}), calibration=3) == ["calibration"]


def test_what_stands_in_for_a_wrong_value_is_no_problem_of_its_own(folder):
    vectors = replace(VECTORS, vectors={**VECTORS, "evil": replace(VECTORS["evil"], layer=None)})
    vectors.save(folder / "vectors.safetensors")
    assert problem_keys(folder, rule(layer="last", threshold={"raw": 1.0}), calibration=None) == [
        "policies[0].layer"
    ]


def test_what_stands_in_for_a_missing_value_is_no_problem_of_its_own(folder):
    wrong = {key: value for key, value in rule().items() if key != "threshold"}
    assert problem_keys(folder, wrong, calibration=None) == ["policies[0]"]


def test_a_policy_with_a_threshold_that_is_out_of_range_is_still_checked_against_the_model(folder):
    keys = problem_keys(folder, rule(trait="vice", threshold={"fpr": 2.0}))
    assert keys[-1] == "policies[0].trait"
    assert all(key.startswith("policies[0].threshold") for key in keys[:-1])
    assert len(keys) == 2


def test_what_is_active_is_what_was_loaded(folder):
    given = PolicySet.model_validate(policies(folder, rule()))
    found = load(given, FINGERPRINT, Plugins())
    assert found.policies == given
    assert "block" in found.plugins.actions
    assert found.sha256 == found.plan.policy_sha256


class Detector:
    """A plugin with a probe for models of this width."""

    @hookimpl
    def guardrail_probes(self, fingerprint):
        return [Probe(trait="custom", layer=3, weights=np.ones(fingerprint.d_model, np.float32))]


def test_policies_may_be_about_a_plugins_probe(folder):
    content = policies(folder, rule(trait="custom", layer="auto", threshold={"raw": 1.0}))
    assert load(content, FINGERPRINT, Plugins([Detector()])).plan.layers == (3,)


class Installed(Plugins):
    """Every plugin is installed but one; remembers which were enabled together."""

    def enabled(self, names):
        if "nowhere" in names:
            raise PluginError("nowhere to be found")
        self.together = tuple(names)
        return self


def test_plugins_that_are_installed_are_enabled_beside_those_that_are_not(folder):
    plugins = Installed()
    with pytest.raises(PolicyError) as caught:
        load(policies(folder, rule(), plugins=["one", "nowhere", "two"]), FINGERPRINT, plugins)
    assert [key for key, _ in messages(caught)] == ["plugins[1]"]
    assert plugins.together == ("one", "two")


@pytest.mark.parametrize("value", ["Infinity", "NaN", "1e999", "1e-320"])
def test_a_calibration_that_disarms_a_policy_does_not_load(tmp_path, value):
    """The smallest change that once answered every prompt: one number of the calibration file."""
    folder = world(tmp_path)
    path = folder / "calibration.json"
    path.write_text(re.sub(r'"sd": [^,}]+', f'"sd": {value}', path.read_text()))
    with pytest.raises(PolicyError):
        load(policies(folder, rule()), FINGERPRINT, Plugins())
