"""Numbers and verdicts from what `patching` kept; no model is run.

    python -m benchmarks.interpret.patching_found NAME

Intervals: 95 %, over questions and words (`crossed`); both directions. A claim agrees if the whole interval
is beyond the number, disagrees if the whole interval is on the other side, else it is not shown.

1. Early MLPs at the identity carry nearly the whole effect: the first window of layers at the identity has at
   least .8 of the effect that it has at all tokens.
2. It fades with depth: the first window at the identity less the last one is above 0.
3. Early layers act indirectly: of the MLPs in the first third of the layers, the indirect part less the
   direct one is above 0. Late ones directly: of attention in the last third, the direct part less the
   indirect one is. A direct part is that of the last token; indirect: the effect at all tokens less that.
4. It is a persona and not a word: at the identity, MLP 1 has more effect with the values of the persona's
   own prompt than with those of the word alone; and more for personas than for topics. Both differences are
   above 0.
5. Few heads carry it: of the heads at the last token, the strongest twentieth on half of the questions has at
   least half of all positive effects on the other half (mean of both ways round).

Only pairs with a persona count, except where topics are named. Beside them: every kind by itself, and without
pairs that only echo the word (an answer is the beginning of the identity itself).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.interpret.lone_words_found import words
from benchmarks.interpret.patching import RUNS
from benchmarks.interpret.patching_heads import strongest
from benchmarks.interpret.pool import parts
from benchmarks.interpret.swept import Swept, echoes, kinds, persona
from benchmarks.real.results import save
from guardrail.interpret.patching import PatchResult
from guardrail.interpret.patching.pairs import counted
from guardrail.interpret.patching.patches import PARTS, positions
from guardrail.interpret.patching.results import DIRECTIONS
from guardrail.statistics.intervals import Estimate, Numbers, bootstrap

FOLDER = Path(__file__).parents[1] / "results" / "interpret"
SHARE, HALF = 0.8, 0.5
Numbered = dict[str, Estimate]


def verdict(found: Estimate, limit: float = 0.0) -> str:
    """Whether a number is above its limit."""
    return "agrees" if found.low > limit else "disagrees" if found.high < limit else "not shown"


def verdicts(
    way: str, swept: Swept | None, tried: Mapping[str, object], heads: Swept | None
) -> dict[str, str]:
    """What the claims come to, one way."""
    made: dict[str, str] = {}
    if swept:
        people = swept.of(persona)
        first, direct = windows(people, way), directness(people, way)
        made |= {
            "1 early MLPs at the identity": verdict(first["share at identity"], SHARE),
            "2 fades": verdict(first["first less last window at identity"]),
            "3 early MLPs indirect": verdict(direct["early MLPs: indirect less direct"]),
            "3 late attention direct": verdict(direct["late attention: direct less indirect"]),
        }
    differences = {
        "4 not the word alone": "own prompt less word alone",
        "4 not topics": "personas less topics",
    }
    for name, key in differences.items():
        if isinstance(found := tried.get(key), Estimate):
            made[name] = verdict(found)
    if heads:
        share = strongest(heads.of(persona), "last", way).share
        made["5 few heads"] = "agrees" if share >= HALF else "disagrees"
    return made


def screened(screen: PatchResult) -> dict[str, object]:
    """How many pairs of each kind passed, and why the others did not."""
    passed = Counter(parts(pair.name)[0] for pair in screen.about.pairs)
    every = passed + Counter(parts(reject.name)[0] for reject in screen.about.rejects)
    return {
        "pairs": len(screen.about.pairs) + len(screen.about.rejects),
        "passed": len(screen.about.pairs),
        "left_out": counted(screen.about.rejects),
        "by_kind": {kind: f"{passed[kind]} of {every[kind]}" for kind in sorted(every)},
        "echoes": sum(map(echoes, screen.about.pairs)),
        "gap": bootstrap(
            lambda gaps: float(np.median(np.abs(gaps))), np.array([p.gap for p in screen.about.pairs])
        ),
    }


def windows(found: Swept, way: str) -> Numbered:
    """Claims 1 and 2."""
    last = found.about.layers - found.about.window + 1
    first, every, late = (
        found.window("mlp", *where, way) for where in ((1, "identity"), (1, "all"), (last, "identity"))
    )
    return {
        "first window at identity": found.estimate([first]),
        "first window at all tokens": found.estimate([every]),
        "share at identity": found.estimate([first, every], lambda means: means[..., 0] / means[..., 1]),
        "first less last window at identity": found.estimate([first - late]),
        "first less second window at identity": found.estimate(
            [first - found.window("mlp", 2, "identity", way)]
        ),
    }


def directness(found: Swept, way: str) -> Numbered:
    """Claim 3, and how the direct effects of all layers are spread."""
    third = found.about.layers // 3
    early = range(1, third + 1)
    middle = range(third + 1, found.about.layers - third + 1)
    late = range(found.about.layers - third + 1, found.about.layers + 1)
    made = {
        "early MLPs: indirect less direct": _indirect(found, "mlp", early, way),
        "late attention: direct less indirect": -_indirect(found, "attn", late, way),
    }
    for part, layers in (("mlp", "MLP"), ("attn", "attention")):
        for name, third_ in (("early", early), ("middle", middle), ("late", late)):
            direct = [found.layer(part, n, "last", way, direct=True) for n in third_]  # type: ignore[arg-type]
            made[f"direct effects, {name} {layers}, sum"] = np.sum(direct, axis=0)
    return {name: found.estimate([column]) for name, column in made.items()}


def _indirect(found: Swept, part: str, layers: range, way: str) -> Numbers:
    """Indirect less direct effect of each pair, the mean of some layers."""
    rows = [
        found.layer(part, n, "all", way) - 2 * found.layer(part, n, "last", way, direct=True)  # type: ignore[arg-type]
        for n in layers
    ]
    return np.mean(rows, axis=0)


def effects(found: Swept) -> dict[str, object]:
    """Claims 1 to 3 on all personas, every kind, and without echoes; curves over layers."""
    people = found.of(persona)
    groups = {"personas": people, "personas, no echoes": people.of(lambda pair: not echoes(pair))}
    groups |= {
        kind: found.of(lambda pair, kind=kind: parts(pair.name)[0] == kind) for kind in kinds(found.pairs)
    }
    return {
        "pairs": {name: len(group.pairs) for name, group in groups.items()},
        "windows": {
            way: {name: windows(one, way) for name, one in groups.items() if one.pairs} for way in DIRECTIONS
        },
        "direct and indirect": {way: directness(people, way) for way in DIRECTIONS},
        "curves": {way: _curves(people, way) for way in DIRECTIONS},
    }


def _curves(found: Swept, way: str) -> dict[str, dict[int, Estimate]]:
    made = {
        f"{part} at {where}": found.curve(part, where, way)
        for part in ("resid", *PARTS)
        for where in ("identity", "all", "others")
    }
    return made | {f"{part}, direct": found.curve(part, "last", way, direct=True) for part in PARTS}


def headed(found: Swept) -> dict[str, object]:
    """Claim 5."""
    return {"pairs": len(found.pairs), **{way: strongest(found, "last", way) for way in DIRECTIONS}}


def positioned(found: Swept) -> dict[str, object]:
    """Layers by positions."""
    grid = [(part, where) for part in ("resid", *PARTS) for where in positions(found.about.near)]
    return {
        "pairs": len(found.pairs),
        **{
            way: {f"{part} at {where}": found.curve(part, where, way) for part, where in grid}
            for way in DIRECTIONS
        },
    }


def main() -> int:
    name = sys.argv[1]
    folder = RUNS / name
    screen = PatchResult.load(folder / "screen")
    swept, heads = Swept.load(folder, "effects"), Swept.load(folder, "heads")
    placed = Swept.load(folder, "positions")
    tried = words(folder)
    result = {
        "model": name,
        "form": screen.about.form,
        "screen": screened(screen),
        "verdicts": {way: verdicts(way, swept, tried.get(way, {}), heads) for way in DIRECTIONS},
        "effects": effects(swept) if swept else None,
        "words": tried,
        "heads": headed(heads.of(persona)) if heads else None,
        "positions": positioned(placed.of(persona)) if placed else None,
    }
    print(save(f"patching-{name}", result, folder=FOLDER))
    return 0


if __name__ == "__main__":
    sys.exit(main())
