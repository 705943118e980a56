"""`python -m benchmarks.serving`: everything about the server that is measured, one part after another.

Takes about forty minutes on a machine that nobody else uses, and writes a file for each part to
`benchmarks/results`. Name parts to run only those.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from os import getloadavg

from benchmarks.serving import hostile, kills, load, proxy, soak

ALONE, BATCHING = "transformers", "transformers-batching"
PARTS: Mapping[str, Callable[[], int]] = {
    "proxy": lambda: proxy.main([]),
    "load": lambda: _load(ALONE, "serving-load"),
    "load-batching": lambda: _load(BATCHING, "serving-load-batching"),
    "hostile": lambda: hostile.main([]),
    "kills": lambda: kills.main([]),
    "soak": lambda: soak.main([]),
    "soak-alone": lambda: soak.main(["--engine", ALONE, *_named("serving-soak-alone")]),
}


def _load(engine: str, name: str) -> int:
    return load.main(["--engine", engine, "--requests", "96", "--pairs", "4", "--name", name])


def _named(name: str) -> Sequence[str]:
    return "--name", name, "--work", f"runs/{name}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: how many parts found something."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all, if none is named")
    chosen, found = parser.parse_args(arguments).parts or list(PARTS), 0
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}")
    for name in chosen:
        print(f"{datetime.now():%H:%M:%S} {name}, load {getloadavg()[0]:.1f}", flush=True)
        found += bool(PARTS[name]())
    return found


if __name__ == "__main__":
    sys.exit(main())
