"""kill -9 at random moments of an extraction: what comes out in the end is the same to the byte.

Processes are forked from a server that has torch loaded. `benchmarks/extraction_kills.py` does it at length,
on the built-in model.
"""

import multiprocessing
import os
import random
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from extraction import contents

KILLS, ATTEMPTS = 4, 5
"""A busy machine may let a process end before it is killed; then all begins again."""
LOADED = ("safetensors.numpy", "transformers.generation.utils", "transformers.models.llama.modeling_llama")


@pytest.fixture
def spawn(monkeypatch):
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs a fork server")
    folders = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*folders, *sys.path]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["extraction", "nnsight", *LOADED])

    def start(folder):
        process = context.Process(target=_extraction, args=(str(folder),))
        process.start()
        return process

    return start


def _extraction(folder):
    from extraction import run_to_file

    run_to_file(folder, 3)


def size(folder):
    """Bytes on disk."""
    found = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # renamed meanwhile
            found += path.stat().st_size
    return found


def wait_for(process, folder, bytes_):
    """Until so much is on disk, or the process has ended."""
    while process.exitcode is None and size(folder) < bytes_:
        process.join(0.001)


def killed(spawn, folder, total, rng, left):
    """Whether it was killed before it had written all; `left` kills are still to come, this one included."""
    process = spawn(folder)
    so_far = size(folder)
    wait_for(process, folder, so_far + 0.8 * rng.random() * (total - so_far) / left)
    process.kill()
    process.join()
    return process.exitcode == -9


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_at_the_same_bytes(spawn, tmp_path):
    whole = spawn(tmp_path / "whole")
    whole.join()
    assert whole.exitcode == 0
    total, rng = size(tmp_path / "whole"), random.Random(time.time_ns())
    for attempt in range(ATTEMPTS):
        folder = tmp_path / f"killed-{attempt}"
        if all(killed(spawn, folder, total, rng, left) for left in range(KILLS, 0, -1)):
            break
    else:
        pytest.fail(f"in {ATTEMPTS} attempts it always ended before it was killed {KILLS} times")
    last = spawn(folder)
    last.join()
    assert last.exitcode == 0
    # a kill can leave the hidden part of a file that was being written whole
    found = {name: data for name, data in contents(folder).items() if not Path(name).name.startswith(".")}
    assert found == contents(tmp_path / "whole")
