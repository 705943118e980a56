"""Reloading survives whatever a policy file holds, and goes on with the next good one."""

import json
import os
import threading

import pytest
from patience import wait_for
from worlds import FINGERPRINT, policies, rule, world

from guardrail.errors import ConfigError
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import load
from guardrail.policy.reload import PolicyWatcher

MERGE_BOMB = "a: &a {k: 1}\n" + "".join(
    f"{b}: &{b}\n  <<: [{', '.join(['*' + a] * 9)}]\n  {b}{b}: 1\n"
    for a, b in zip("abcd", "bcde", strict=True)
)
BAD = {
    "a user who does not exist": 'version: 1\nvectors: "~nosuchuser/x"',
    "a null character": 'version: 1\nvectors: "a\\0b"',
    "a calibration with a null character": 'version: 1\ncalibration: "a\\0b"',
    "half a character": 'version: 1\nvectors: "\\ud800"',
    "a tag on the whole file": "!!python/object:os.system\nversion: 1",
    "a set": "!!set {version}",
    "many merges": MERGE_BOMB,
    "bytes": "\x00\x01",
}


@pytest.fixture
def watched(tmp_path):
    path = write(world(tmp_path), "good")
    with PolicyWatcher(path, lambda: FINGERPRINT, Plugins()) as watcher:
        yield watcher, path


def write(folder, name):
    path = folder / "policies.json"
    path.write_text(str(policies(folder, rule(id=name))).replace("'", '"'))
    return path


def active(watcher):
    return [found.id for found in watcher.active.plan.rules]


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_no_file_makes_a_reload_raise(watched, text):
    watcher, path = watched
    path.write_text(text)
    assert not watcher.reload()
    assert (active(watcher), watcher.failures) == (["good"], 1)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_no_file_ends_the_watching(watched, text):
    watcher, path = watched
    watcher.watch(0.01)
    path.write_text(text)
    assert wait_for(lambda: watcher.failures == 1)
    write(path.parent, "next")
    assert wait_for(lambda: active(watcher) == ["next"])


@pytest.mark.parametrize("name", ["policies.json", "*.safetensors"])
def test_a_pipe_in_place_of_a_file_holds_nothing_up(watched, name):
    watcher, path = watched
    other = next(path.parent.glob(name))
    kept = other.read_bytes()
    other.unlink()
    os.mkfifo(other)
    watcher.watch(0.01)
    assert wait_for(lambda: watcher.failures > 0)
    assert "is a pipe or a device" in str(watcher.error)
    other.unlink()
    other.write_bytes(kept)
    assert wait_for(lambda: watcher.error is None)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_nothing_that_a_plugin_raises_ends_the_watching(tmp_path, error):
    class Plugin:
        raises = False

        @hookimpl
        def guardrail_scorers(self):
            if self.raises:
                raise error
            return []

    path, plugin = write(world(tmp_path), "good"), Plugin()
    with PolicyWatcher(path, lambda: FINGERPRINT, Plugins([plugin])) as watcher:
        plugin.raises = True
        watcher.watch(0.01)
        write(tmp_path, "refused")
        assert wait_for(lambda: watcher.failures == 1)
        assert active(watcher) == ["good"]
        plugin.raises = False
        write(tmp_path, "next")
        assert wait_for(lambda: active(watcher) == ["next"])


def test_a_file_that_is_being_written_is_read_once_it_is_whole(watched):
    watcher, path = watched
    whole = write(path.parent, "whole").read_text()
    path.write_text("")
    writing = threading.Timer(0.02, lambda: path.write_text(whole))
    writing.start()
    assert watcher.reload()
    assert (active(watcher), watcher.failures) == (["whole"], 0)
    writing.join()


def test_a_file_that_never_rests_is_not_taken(watched, monkeypatch):
    watcher, path = watched
    monkeypatch.setattr(watcher, "_accept", lambda _: path.write_text(path.read_text() + "\n"))
    assert not watcher.reload()
    assert "changed all the time" in str(watcher.error)
    assert active(watcher) == ["good"]


@pytest.mark.parametrize("key", ["vectors", "calibration"])
@pytest.mark.parametrize("name", ["~nosuchuser/x", "a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_is_a_problem_at_its_key(tmp_path, key, name):
    with pytest.raises(ConfigError, match=f"{key}: .*(cannot be a file|not valid Unicode)"):
        load(policies(world(tmp_path), rule(), **{key: name}), FINGERPRINT, Plugins())


def test_a_watch_that_cannot_start_can_be_started_again(watched, monkeypatch):
    watcher, path = watched
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _fails)
        with pytest.raises(RuntimeError, match="start new thread"):
            watcher.watch(0.01)
    watcher.watch(0.01)
    write(path.parent, "next")
    assert wait_for(lambda: active(watcher) == ["next"])


def _fails(thread):
    raise RuntimeError("can't start new thread")


def test_warnings_are_logged_once_and_again_only_if_a_reload_brings_new_ones(tmp_path, caplog):
    broad = rule(id="broad", threshold=0.01)
    path = world(tmp_path) / "policies.json"
    path.write_text(json.dumps(policies(tmp_path, broad)))
    with PolicyWatcher(path, lambda: FINGERPRINT, Plugins()) as watcher:
        assert [record.getMessage()[:20] for record in caplog.records] == ["broad: the threshold"]
        path.write_text(json.dumps(policies(tmp_path, broad, rule(id="open", on_error="allow"))))
        assert watcher.reload()
    assert [record.getMessage()[:16] for record in caplog.records[1:]] == ["open: fails open"]
