"""`python -m benchmarks.real.guards_timed`: the guard's time beside that of a text guard, on SmolLM2.

Allowed messages, to the first token: under a guard, which reads the model's own pass, and behind the text
guard, which runs before it. One pair of models, so differences of some percent show nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.real import results
from benchmarks.real.cost import LENGTHS, Couple, as_expected, guarded
from benchmarks.real.models import SMOLLM2
from benchmarks.real.nanoguard import NanoGuard
from benchmarks.runner import timed
from guardrail.bench.cases import Case
from guardrail.bench.clocks import cpu_clock
from guardrail.bench.pairs import total
from guardrail.bench.plans import NEVER
from guardrail.bench.results import measured

PAIRS = 12


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    torch.set_num_threads(1)
    couple = Couple.load(SMOLLM2, "float32")
    rows = [
        measured(f"{couple.name}: {case.name}", timed(couple, case, PAIRS, cpu_clock()).timings(total), None)
        for case in cases(NanoGuard(), couple)
    ]
    print(results.save("guards-timed", {"clock": "cpu", "rows": rows}))
    return 0


def cases(text_guard: NanoGuard, couple: Couple) -> Iterator[Case]:
    """Both guards at every length. A case holds until the next one is asked for."""
    for tokens in LENGTHS:
        messages = couple.asked(tokens)
        bare = couple.first_token(messages)

        def behind(text: str = messages[0]["content"], then: Any = bare) -> object:
            text_guard.logits([text])
            return then()

        with TemporaryDirectory() as folder, guarded(couple, "last", NEVER, Path(folder)) as guard:
            yield Case(
                name=f"{tokens} tokens, guard",
                guarded=partial(guard.chat, messages, max_new_tokens=1, temperature=0),
                bare=bare,
                holds=partial(as_expected, "allow"),
            )
        yield Case(name=f"{tokens} tokens, NanoGuard", guarded=behind, bare=bare, holds=lambda a, b: a == b)


if __name__ == "__main__":
    sys.exit(main())
