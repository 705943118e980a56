"""vLLM starts slowly, so the tests share one; and it warns about itself when it is imported."""

import os
import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config):
    unraisable = "pytest.PytestUnraisableExceptionWarning"
    for kind in ("FutureWarning", "DeprecationWarning", "UserWarning", "ResourceWarning", unraisable):
        config.addinivalue_line("filterwarnings", f"ignore::{kind}")
    # vLLM leaves sockets' contexts open, which are found after the last test, when no filter of pytest holds
    warnings.simplefilter("ignore", ResourceWarning)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory, monkeypatch):
    """Nothing a test does lands in the user's review queue."""
    monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(tmp_path_factory.mktemp("queue") / "queue.sqlite"))


@pytest.fixture(scope="session")
def reference():
    """The built-in model under transformers."""
    import torch
    from world import POLICIES

    from guardrail import Guard

    with Guard.from_pretrained("demo", POLICIES, engine="transformers-hooks", dtype=torch.float32) as guard:
        yield guard


@pytest.fixture(scope="session")
def guard():
    """The built-in model under vLLM, with prefix caching and chunked prefill as they are by default."""
    from world import guarded

    with guarded() as guard:
        yield guard
