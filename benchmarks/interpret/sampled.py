"""Direct effects, windows, heads and positions on more pairs: a new random sample of `pool`.

    python -m benchmarks.interpret.sampled NAME [PART ...] [--path FILE]     # smollm2 or gemma
    python -m benchmarks.interpret.sampled NAME --found        # numbers and verdicts; no model is run

`patching` ran 12 pairs of each model, because a pair takes half a minute and more. Here pairs of personas (no
topics) are drawn in a random order and asked, 12 at a time; those that change the answer by half a logit are
patched. How many are asked, and in which order parts are run, was written before any was: 72 for SmolLM2, 48
for Gemma. Should the time not suffice, the whole dozens that it sufficed for count.

* heads: every head at the last token.
* direct: every MLP and attention at all tokens, and its direct part.
* windows: four layers together, at the identity and at all tokens. Of the first half of the dozens.
* positions: layer by token. Of the first dozen.

Criteria are those of `patching_found`. Runs go on where they were killed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from random import Random

from benchmarks.interpret.patching import CHUNK, NEAR, RUNS, SEED, chunked
from benchmarks.interpret.patching_found import directness, positioned, verdict, windows
from benchmarks.interpret.patching_heads import strongest
from benchmarks.interpret.pool import TOPIC, parts, pool
from benchmarks.interpret.rounded import subject
from benchmarks.interpret.swept import Swept
from benchmarks.real.results import save
from guardrail.extract.subject import Subject
from guardrail.interpret.forms import Form, form_of
from guardrail.interpret.patching import PairLine, PatchSettings, sweep
from guardrail.interpret.patching.patches import Sweep
from guardrail.interpret.patching.results import DIRECTIONS
from guardrail.statistics.intervals import Estimate

FOLDER = Path(__file__).parents[1] / "results" / "interpret"
ASKED = {"smollm2": 72, "gemma": 48}
SWEEPS: dict[str, tuple[Sweep, ...]] = {
    "heads": ("heads",),
    "direct": ("direct",),
    "windows": ("windows",),
    "positions": ("positions",),
}
SHARE, HALF = 0.8, 0.5
Curves = dict[str, dict[int, Estimate]]


def drawn(form: Form, count: int) -> list[PairLine]:
    """The first pairs of personas in a random order, which is that of another sample than `patching`'s."""
    people = [line for line in pool(form) if parts(line.name)[0] != TOPIC]
    return Random(SEED + 1).sample(people, len(people))[:count]


def dozens(part: str, asked: int) -> int:
    """How many dozens of pairs a part is meant to be run on."""
    every = asked // CHUNK
    return {"heads": every, "direct": every, "windows": every // 2, "positions": 1}[part]


def run(name: str, model: Subject, part: str) -> None:
    """One part, dozen by dozen."""
    lines = drawn(form_of(model), ASKED[name])
    settings = PatchSettings(
        sweeps=SWEEPS[part], form=form_of(model), near=NEAR, head_tokens=("last",), least_gap=0.5
    )
    for number, dozen in enumerate(list(chunked(lines))[: dozens(part, ASKED[name])]):
        folder = RUNS / f"{name}-sampled" / f"{part}-{number}"
        if not (folder / "patch.json").is_file():
            sweep(model, dozen, settings, folder, name, _say).save(folder)
        _say(folder.name, len(dozen), len(lines))


def found(name: str) -> dict[str, object]:
    """Numbers of all parts that were run, and what they come to."""
    folder = RUNS / f"{name}-sampled"
    swept = {part: Swept.load(folder, part) for part in SWEEPS}
    made: dict[str, object] = {"model": name}
    for part, one in swept.items():
        if one:
            asked = CHUNK * len(list(folder.glob(f"{part}-*/patch.json")))
            made[part] = {"asked": asked, **_numbers(part, one)}
    return made


def _numbers(part: str, swept: Swept) -> dict[str, object]:
    about: dict[str, object] = {"pairs": swept.names}
    if part == "positions":
        return about | positioned(swept)
    measured = {"heads": _heads, "direct": _direct, "windows": _window}[part]
    return about | {way: measured(swept, way) for way in DIRECTIONS}


def _heads(swept: Swept, way: str) -> dict[str, object]:
    found = strongest(swept, "last", way)
    return {"5 few heads": "agrees" if found.share >= HALF else "disagrees", "heads": found}


def _direct(swept: Swept, way: str) -> dict[str, object]:
    numbers = directness(swept, way)
    return {
        "3 early MLPs indirect": verdict(numbers["early MLPs: indirect less direct"]),
        "3 late attention direct": verdict(numbers["late attention: direct less indirect"]),
        **numbers,
        "curves": _layers(swept, way),
    }


def _window(swept: Swept, way: str) -> dict[str, object]:
    numbers = windows(swept, way)
    return {
        "1 early MLPs at the identity": verdict(numbers["share at identity"], SHARE),
        "2 fades": verdict(numbers["first less last window at identity"]),
        **numbers,
        "curves": _windows(swept, way),
    }


def _windows(swept: Swept, way: str) -> Curves:
    firsts = range(1, swept.about.layers - swept.about.window + 2)
    return {
        f"{part} at {where}": {n: swept.estimate([swept.window(part, n, where, way)]) for n in firsts}
        for part in ("mlp", "attn")
        for where in ("identity", "all")
    }


def _layers(swept: Swept, way: str) -> Curves:
    made = {f"{part} at all": swept.curve(part, "all", way) for part in ("mlp", "attn")}
    return made | {f"{part}, direct": swept.curve(part, "last", way, direct=True) for part in ("mlp", "attn")}


def _say(stage: str, done: int, total: int) -> None:
    print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=list(ASKED))
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(SWEEPS)}; default: all")
    parser.add_argument("--path", type=Path, help="the model's GGUF file, if it is there already")
    parser.add_argument("--found", action="store_true", help="run nothing; write what was found")
    given = parser.parse_args()
    if given.found:
        print(save(f"patching-{given.name}-sampled", found(given.name), folder=FOLDER))
        return 0
    model = subject(given.name, given.path)
    for part in given.parts or SWEEPS:
        run(given.name, model, part)
    return 0


if __name__ == "__main__":
    sys.exit(main())
