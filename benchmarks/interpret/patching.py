"""The claims of Poonia and Jain (2507.20936) on activation patching: runs models, and keeps what they did.

    python -m benchmarks.interpret.patching NAME [PART ...] [--chunks N] [--path FILE]
    python -m benchmarks.interpret.patching_found NAME     # numbers and verdicts; no model is run

NAME: demo, smollm2 (in its chat template) or gemma (a base model, as text). Pairs, parts and criteria (in
`patching_found`) were written before any of these pairs was run. Parts, in this order:

* screen: all pairs of `pool`; of which does the persona change the answer, by half a logit or more?
* words: what a layer makes of the word by itself (`lone_words`).
* effects: sweeps over scopes, windows of four layers, direct effects; both directions.
* heads: every head, at the last token; both directions.
* positions: token by token; both directions.

Pairs that passed are shuffled and come in chunks of 12; how many chunks are run is a matter of time, and of
nothing else. Runs go on where they were killed, from journals in runs/interpret/patching.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from benchmarks.interpret import lone_words
from benchmarks.interpret.pool import pool
from benchmarks.interpret.rounded import subject
from guardrail.extract.subject import Subject
from guardrail.interpret.forms import form_of
from guardrail.interpret.patching import PairLine, PatchResult, PatchSettings, sweep
from guardrail.interpret.patching.builtin import demo_pairs
from guardrail.interpret.patching.patches import Sweep

RUNS = Path(__file__).parents[2] / "runs" / "interpret" / "patching"
SEED, CHUNK, NEAR = 19, 12, 2
SWEEPS: dict[str, tuple[Sweep, ...]] = {
    "screen": (),
    "effects": ("scopes", "windows", "direct"),
    "heads": ("heads",),
    "positions": ("positions",),
}
PARTS = ("screen", "words", "effects", "heads", "positions")


def lines(name: str, model: Subject) -> list[PairLine]:
    """What a model is asked. The demo model is asked its own questions, about nationalities."""
    if name != "demo":
        return pool(form_of(model))
    named = ((f"nationality / {one.prompt} / {one.source}, {one.target}", one) for one in demo_pairs())
    return [one.model_copy(update={"name": title}) for title, one in named]


class Run:
    """One model; what it has done lies in a folder for each part and chunk."""

    def __init__(self, name: str, path: Path | None) -> None:
        self.name, self.folder = name, RUNS / name
        self.model = subject(name, path)
        self.lines = lines(name, self.model)

    def screen(self) -> list[PairLine]:
        """The pairs on which the persona changes the answer, shuffled."""
        found = self._swept("screen", self.lines, self.folder / "screen")
        passed = {pair.name for pair in found.about.pairs}
        return Random(SEED).sample(chosen := [one for one in self.lines if one.name in passed], len(chosen))

    def part(self, part: str, chunks: int) -> None:
        """One part, of so many chunks."""
        passed = self.screen()
        if part == "screen":
            return
        for number, chunk in enumerate(list(chunked(passed))[:chunks]):
            folder = self.folder / f"{part}-{number}"
            if part == "words":
                lone_words.run(self.model, chunk, folder.with_suffix(".json"))
            else:
                self._swept(part, chunk, folder)
            _say(folder.name, len(chunk), len(passed))

    def _swept(self, part: str, chosen: list[PairLine], folder: Path) -> PatchResult:
        if not (folder / "patch.json").is_file():
            settings = PatchSettings(
                sweeps=SWEEPS[part], form=form_of(self.model), near=NEAR, head_tokens=("last",)
            )
            sweep(self.model, chosen, settings, folder, self.name, _say).save(folder)
        return PatchResult.load(folder)


def chunked(chosen: list[PairLine]) -> Iterator[list[PairLine]]:
    """CHUNK pairs at a time."""
    for start in range(0, len(chosen), CHUNK):
        yield chosen[start : start + CHUNK]


def _say(stage: str, done: int, total: int) -> None:
    print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=("demo", "smollm2", "gemma"))
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--chunks", type=int, default=1000, help="how many are run; default: all")
    parser.add_argument("--path", type=Path, help="the model's GGUF file, if it is there already")
    given = parser.parse_args()
    run = Run(given.name, given.path)
    for part in given.parts or PARTS:
        run.part(part, given.chunks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
