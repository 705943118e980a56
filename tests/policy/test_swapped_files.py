"""A watcher follows files that are swapped as Kubernetes and editors do it, and never takes half of one."""

import threading
import time

import pytest
from mounts import Mount
from patience import wait_for
from worlds import FINGERPRINT, policies, rule, world

from guardrail.errors import PolicyError
from guardrail.plugins.manager import Plugins
from guardrail.policy import reload
from guardrail.policy.reload import PolicyWatcher

NAMES = ("policy.yaml", "vectors.safetensors", "calibration.json")
TWO = """version: 1
vectors: vectors.safetensors
calibration: calibration.json
policies:
- {id: first, trait: evil, layer: 2, threshold: 2.0, action: block}
"""
REST = "- {id: second, trait: evil, layer: 2, threshold: 2.0, action: block}\n"


class Volume(Mount):
    """A mounted folder with a policy file, its vectors and its calibration."""

    def __init__(self, folder):
        super().__init__(folder, NAMES, lambda new: filled(new, "one", folder))

    @property
    def path(self):
        return self.folder / "policy.yaml"

    def swap_to(self, policy, leave_out=()):
        self.swap(lambda new: filled(new, policy, self.folder, leave_out))


def filled(new, policy, folder, leave_out=()):
    world(new)
    mapping = policies(folder, rule(id=policy), vectors=NAMES[1], calibration=NAMES[2])
    (new / "policy.yaml").write_text(str(mapping).replace("'", '"'))
    for name in leave_out:
        (new / name).unlink()


@pytest.fixture
def volume(tmp_path):
    return Volume(tmp_path / "mounted")


def watcher_of(path):
    return PolicyWatcher(path, lambda: FINGERPRINT, Plugins())


def active(watcher):
    return [found.id for found in watcher.active.plan.rules]


def test_every_swap_of_a_config_map_is_noticed(volume):
    with watcher_of(volume.path) as watcher:
        watcher.watch(0.01)
        for name in ("two", "three", "four"):
            volume.swap_to(name)
            assert wait_for(lambda wanted=name: active(watcher) == [wanted])
        assert watcher.failures == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_swap_that_lacks_a_file_is_refused_until_the_file_is_back(volume, name):
    with watcher_of(volume.path) as watcher:
        watcher.watch(0.01)
        volume.swap_to("two", leave_out=[name])
        assert wait_for(lambda: watcher.failures == 1)
        assert (active(watcher), watcher.error is not None) == (["one"], True)
        volume.swap_to("three")
        assert wait_for(lambda: active(watcher) == ["three"])
        assert watcher.error is None


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_vanishes_and_comes_back_as_it_was_is_in_order_again(tmp_path, name):
    volume = Volume(tmp_path / "mounted")
    with watcher_of(volume.path) as watcher:
        watcher.watch(0.01)
        link = volume.folder / name
        link.rename(volume.folder / "away")
        assert wait_for(lambda: watcher.failures == 1)
        assert isinstance(watcher.error, PolicyError)
        (volume.folder / "away").rename(link)
        assert wait_for(lambda: watcher.error is None)
        assert active(watcher) == ["one"]


def test_the_first_half_of_a_file_is_not_taken_even_if_it_is_valid(tmp_path, monkeypatch):
    monkeypatch.setattr(reload, "REST_S", 1.0)
    path = world(tmp_path) / "policy.yaml"
    path.write_text(TWO + REST)
    with watcher_of(path) as watcher:
        seen, ended = set(), threading.Event()

        def look():
            while not ended.is_set():
                seen.add(tuple(active(watcher)))
                time.sleep(0.001)

        reader = threading.Thread(target=look)
        reader.start()
        watcher.watch(0.01)
        with path.open("w") as file:
            for piece in (TWO, "# written slowly\n", REST, REST.replace("second", "third")):
                file.write(piece)
                file.flush()
                time.sleep(0.03)
        assert wait_for(lambda: ("first", "second", "third") in seen)
        ended.set()
        reader.join()
    assert seen == {("first", "second"), ("first", "second", "third")}


def test_a_reload_says_what_was_in_force_before_and_after(volume):
    with watcher_of(volume.path) as watcher:
        volume.swap_to("two")
        done = watcher.try_reload()
        assert (done.before.plan.rules[0].id, done.after.plan.rules[0].id, done.error) == ("one", "two", None)
        volume.swap_to("three", leave_out=["policy.yaml"])
        kept = watcher.try_reload()
        assert kept.before is kept.after is watcher.active
        assert kept.error is watcher.error
        assert isinstance(kept.error, PolicyError)
