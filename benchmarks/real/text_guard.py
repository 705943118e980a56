"""`python -m benchmarks.real.text_guard`: a small text guard on the prompts of the detection tables.

It reads the last turn, as such a guard is put in front of a model. It was not fitted on anything here; its
thresholds are set on the same prompts as those of the others. Goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.real import prompt_files, results
from benchmarks.real.detection import measured, tabled
from benchmarks.real.detection_prompts import sets
from benchmarks.real.detectors import Rows
from benchmarks.real.nanoguard import PACKAGE, NanoGuard
from benchmarks.real.persona_vectors import said
from benchmarks.real.prompt_files import Prompt
from guardrail.extract.journal import Journal
from guardrail.statistics.intervals import Numbers

NAME, BATCH = "NanoGuard", 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    prompt_files.takes_data(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = tabled(sets(arguments.data))
    known = scores(NanoGuard().bfloat16(), found.prompts)

    def detector(prompts: Sequence[Prompt], rows: Rows) -> Numbers:
        return known

    saved = {"package": PACKAGE, "dtype": "bfloat16", "detectors": [measured(NAME, detector, found)]}
    print(results.save("text-guard", saved))
    return 0


def scores(guard: NanoGuard, prompts: Sequence[Prompt]) -> Numbers:
    """[n]: the log-odds of each last turn; equal texts are read once."""
    texts = list(dict.fromkeys(prompt.text for prompt in prompts))
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    recipe = {"package": PACKAGE, "dtype": "bfloat16", "texts": digest}
    journal = Journal(results.RUNS / "text-guard.jsonl", recipe, len(texts), BATCH)

    def rows(numbers: Sequence[int]) -> list[dict[str, Any]]:
        return [{"score": score} for score in guard.logits([texts[i] for i in numbers])]

    found = [row["score"] for row in journal.complete(NAME, rows, said)]
    known = dict(zip(texts, found, strict=True))
    return np.array([known[prompt.text] for prompt in prompts])


if __name__ == "__main__":
    sys.exit(main())
