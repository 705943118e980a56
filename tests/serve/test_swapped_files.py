"""Files are swapped under a running server: no request fails, and each has its record."""

import json
import os
import threading

import httpx
import pytest
from mounts import Mount
from patience import wait_for
from serving import Running, chat
from tiny import FIRES, NEVER, TOKENIZER, policies, policy, write_vectors

from guardrail import Guard
from guardrail.audit import read
from guardrail.serve.app import create_app
from guardrail.serve.settings import ServerSettings
from guardrail.testing import tiny_model

NAMES = ("policies.json", "vectors.safetensors", "calibration.json")
OUTCOMES = {"length": "answered", "content_filter": "blocked"}
BOTH, ONE = ("evil", "sycophancy"), ("evil",)


class Asking:
    """A client that asks again and again, on a thread. `said`: how each request ended, by its record's id."""

    def __init__(self, url):
        self.said, self._ended = {}, threading.Event()
        self._url, self._thread = url, threading.Thread(target=self._ask)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()

    def _ask(self):
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._ended.is_set():
                response = client.post("/v1/chat/completions", json=chat(model="tiny", max_tokens=1))
                reason = response.json()["choices"][0]["finish_reason"] if response.is_success else "error"
                self.said[response.headers["x-guardrail-audit-id"]] = reason

    def hears(self, reason):
        """Whether a request that begins from now on ends like this."""
        count = len(self.said)
        return wait_for(lambda: reason in [*self.said.values()][count + 1 :])


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def files(model, tmp_path):
    """Writes the files of one generation: with this threshold, and vectors of these traits."""
    log = {"jsonl": str(tmp_path / "audit.jsonl")}

    def fill(folder, threshold=NEVER, traits=BOTH):
        write_vectors(folder, model, traits)
        content = policies(folder, policy(threshold=threshold), audit=log)
        content |= {"vectors": "vectors.safetensors", "calibration": "calibration.json"}
        (folder / NAMES[0]).write_text(json.dumps(content))

    return fill


@pytest.fixture
def served(model, tmp_path):
    """Serves a policy file to a client that asks. In the end each answer has the record of its outcome."""
    made = []

    def serve(path):
        guard = Guard(model, TOKENIZER, path, watch_s=0.01)
        server = Running(create_app(guard, ServerSettings(model="tiny")))
        made.extend([guard, server, Asking(server.url)])
        return guard, made[-1]

    yield serve
    guard, server, client = made
    server.end()
    server.thread.join(10)
    guard.close()
    outcomes = {record.id: record.outcome for record in read(tmp_path / "audit.jsonl")}
    assert {key: OUTCOMES[reason] for key, reason in client.said.items()} == {
        key: outcomes[key] for key in client.said
    }


def test_a_config_map_is_swapped_under_a_running_server(served, files, tmp_path):
    mount = Mount(tmp_path / "mounted", NAMES, files)
    guard, client = served(mount.folder / NAMES[0])
    with client:
        assert client.hears("length")
        mount.swap(lambda new: files(new, FIRES))
        assert client.hears("content_filter")
        before = guard.active.plan
        mount.swap(lambda new: files(new, NEVER, ONE))
        assert wait_for(lambda: guard.active.plan.vectors_sha256 != before.vectors_sha256)
        assert guard.active.plan.calibration_sha256 != before.calibration_sha256
        assert client.hears("length")
    assert guard.policies.failures == 0


def test_files_are_renamed_one_by_one_under_a_running_server(served, files, tmp_path):
    folder, new = tmp_path / "files", tmp_path / "new"
    folder.mkdir()
    files(folder)
    guard, client = served(folder / NAMES[0])

    def renamed(name, *generation):
        new.mkdir(exist_ok=True)
        files(new, *generation)
        os.replace(new / name, folder / name)

    with client:
        assert client.hears("length")
        renamed("policies.json", FIRES)
        assert client.hears("content_filter")
        before = guard.active.plan
        renamed("vectors.safetensors", FIRES, ONE)
        assert wait_for(lambda: "another vector file" in str(guard.policies.error))
        assert client.hears("content_filter")
        assert guard.active.plan is before
        renamed("calibration.json", FIRES, ONE)
        assert wait_for(lambda: guard.active.plan.vectors_sha256 != before.vectors_sha256)
        assert guard.policies.error is None
        assert client.hears("content_filter")
