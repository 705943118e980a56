"""What the commands of the experiments take: the seeds to run, and a part of the experiment."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence


def asked(description: str | None, parts: Sequence[str] = ("all",)) -> Iterator[tuple[int, str]]:
    """Every pair of a seed and a part, of those that `--seeds` and `--only` name."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="default: %(default)s")
    if len(parts) > 1:
        parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="default: all")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for part in getattr(arguments, "only", parts):
            yield seed, part
