"""One thread for tiny models: they are launch-bound, and two cores run two things at once."""

import gc
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _libraries_stay():
    """The collector walks over objects of tests, not over the hundred thousands of libraries every time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory, monkeypatch):
    """Nothing a test does lands in the user's review queue."""
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(tmp_path_factory.mktemp("queue") / "queue.sqlite"))


@pytest.fixture(autouse=True)
def _compiles_as_before():
    """How torch runs compiled models is set for the whole process, and a guard puts it back.

    A server's thread may still be at work when a test that does not wait for its answer ends.
    """
    yield
    deadline = time.monotonic() + 10
    while (dynamo := sys.modules.get("torch._dynamo.eval_frame")) and dynamo._stance.stance != "default":
        assert time.monotonic() < deadline, "compiled models still run eagerly after this test"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def processes():
    """Starts real processes that have torch loaded."""
    import processes

    server = processes.Server()
    yield server
    server.close()


@pytest.fixture
def no_grad():
    import torch

    with torch.no_grad():
        yield


@pytest.fixture(params=["nnsight", "hooks"])
def executors(request, monkeypatch):
    """What the engine does is the same with either executor, in prefills and in decoding.

    Tests of what goes from a prefill into decoding take `pairs.EXECUTORS`; guards have nnsight, then hooks.
    """
    import tiny

    nnsight, hooks = tiny.EXECUTORS
    pairs = {"nnsight, then hooks": (nnsight, hooks), "nnsight": (nnsight, nnsight), "hooks": (hooks, hooks)}
    monkeypatch.setattr(tiny, "EXECUTORS", pairs[request.param])
