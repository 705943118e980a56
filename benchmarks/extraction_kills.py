"""`python -m benchmarks.extraction_kills`: kill -9 an extraction on the built-in model, ten times a stage.

A process is killed a random moment after it wrote a random number of further bytes to the work folder, and
started again, until rollouts, judging and activations were each hit often enough. Every file must equal that
of an undisturbed run. Starts real processes; takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

STAGES = ("rollouts.jsonl", "scores.jsonl", "moments.safetensors")
EPOCH = "1767225600"


def command(trait: str, folder: Path, samples: int) -> list[str]:
    """The verb, with a small batch so that there is much to interrupt."""
    out = folder / "vectors.safetensors"
    sizes = ["--samples", str(samples), "--batch", "16", "--max-new-tokens", "64", "--min-pairs", "1"]
    verb = [sys.executable, "-m", "benchmarks.extraction_kills", "--verb", "vectors", "extract"]
    return [*verb, "--trait", trait, "--out", str(out), "--work", str(folder / "work"), *sizes]


def start(trait: str, folder: Path, samples: int) -> subprocess.Popen[bytes]:
    """One process."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command(trait, folder, samples), env=environment, stdout=quiet, stderr=quiet)


def size(folder: Path) -> int:
    """Bytes on disk."""
    found = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            found += path.stat().st_size
    return found


def stage(folder: Path) -> str:
    """The last stage that has begun."""
    begun = [name for name in STAGES if any(folder.rglob(name))]
    return begun[-1] if begun else "start"


def killed(trait: str, folder: Path, samples: int, further: int) -> str | None:
    """Kill once so many further bytes are there; the stage it was in, None if it ended before."""
    process, before = start(trait, folder, samples), size(folder)
    while process.poll() is None and size(folder) < before + further:
        time.sleep(0.002)
    time.sleep(random.random() * 0.3)
    process.kill()
    return stage(folder) if process.wait() < 0 else None


def disturbed(trait: str, folder: Path, samples: int, kills: int, whole: Path) -> Counter[str]:
    """Kill and start again, in as many work folders as it takes, each of which has to end as `whole`."""
    hits: Counter[str] = Counter()
    rounds = 0
    while min(hits[name] for name in STAGES) < kills:
        rounds += 1
        here = folder / f"round{rounds}"
        here.mkdir()
        while (hit := killed(trait, here, samples, random.randrange(max(size(whole) // 6, 1)))) is not None:
            hits[hit] += 1
            print(f"killed in {hit}: {dict(hits)}", flush=True)
        if contents(here) != contents(whole):
            raise SystemExit(f"round {rounds}: the files differ from those of an undisturbed run")
    return hits


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, and the hidden parts that a kill leaves."""
    paths = [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock" and not path.name.startswith(".")
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 if an undisturbed run fails."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--verb"]:
        from guardrail.cli import run

        return run(given[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extraction_kills", description=__doc__)
    parser.add_argument("--trait", required=True, help="a definition file of the demo world")
    parser.add_argument("--kills", type=int, default=10, help="in each stage")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/extraction-kills.json"))
    chosen = parser.parse_args(given)
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        whole.mkdir()
        if start(chosen.trait, whole, chosen.samples).wait() != 0:
            return 1
        hits = disturbed(chosen.trait, Path(folder), chosen.samples, chosen.kills, whole)
    write(hits, chosen.out)
    return 0


def write(hits: Counter[str], out: Path) -> None:
    """How often each stage was hit, and where."""
    from guardrail.bench import machine as provenance

    found = {
        "identical": True,
        "kills": dict(hits),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
