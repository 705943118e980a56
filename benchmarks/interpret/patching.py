"""The claims of Poonia and Jain (2507.20936) on activation patching, on one model.

    python -m benchmarks.interpret.patching NAME MODEL

Pairs and criteria were written before any model was patched. A claim holds if the whole interval is beyond
the number:

1. early MLPs at the identity carry nearly the whole effect: the first window of layers at the identity has at
   least 0.8 of the effect that it has at all tokens (difference of the two, as a share of the latter's mean).
2. it fades with depth: the first window at the identity has a larger effect than the last one.
3. early layers act indirectly, late ones directly: of the MLP effect at all tokens, the indirect part is
   larger in the first third of the layers, and the direct part is larger in attention of the last third.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from itertools import permutations
from pathlib import Path
from random import Random

import numpy as np

from benchmarks.real.results import save
from guardrail.extract.subject import Subject
from guardrail.interpret.patching import PairLine, Patch, PatchResult, PatchSettings, sweep
from guardrail.interpret.patching.builtin import demo_pairs
from guardrail.interpret.patching.pairs import counted
from guardrail.statistics.intervals import Estimate, mean

FOLDER = Path(__file__).parents[1] / "results" / "interpret"
WORK = Path("runs") / "interpret"
WORDS = ("French", "Chinese", "Indian", "Russian", "German", "Japanese")
TEXTS = (
    "I am a {identity} student. The capital of my country is",
    "I am a {identity} cook. The dish that I like best is",
    "I am a {identity} writer. My mother tongue is",
    "I am a {identity} farmer. The river near my village is called",
)
PAIRS, SEED, WAY = 12, 19, "denoising"


def real_pairs() -> list[PairLine]:
    """Texts that go on differently for two nationalities."""
    made = [(text, *two) for text in TEXTS for two in permutations(WORDS, 2)]
    return [
        PairLine(prompt=text, source=a, target=b, name=f"{text} ({a}, {b})")
        for text, a, b in Random(SEED).sample(made, PAIRS)
    ]


def claims(found: PatchResult) -> dict[str, Estimate]:
    """The numbers of the claims, each with its interval over pairs."""
    layers, width = found.about.layers, found.about.window

    def window(first: int, where: str) -> np.ndarray:
        return found.values(Patch(tuple(range(first, first + width)), "mlp", where), WAY)

    first, everywhere = window(1, "identity"), window(1, "all")
    last = window(layers - width + 1, "identity")
    third = layers // 3
    early, late = range(1, third + 1), range(layers - third + 1, layers + 1)
    return {
        "first_window_at_identity": mean(first),
        "first_window_at_all_tokens": mean(everywhere),
        "identity_share": mean(first / everywhere.mean()),
        "first_less_last_window": mean(first - last),
        "early_mlp_indirect_less_direct": mean(_parts(found, "mlp", early)),
        "late_attention_direct_less_indirect": mean(-_parts(found, "attn", late)),
    }


def _parts(found: PatchResult, part: str, layers: range) -> np.ndarray:
    """Indirect less direct effect of each pair, the mean of some layers."""
    rows = []
    for layer in layers:
        total = found.values(Patch((layer,), part, "all"), WAY)  # type: ignore[arg-type]
        direct = found.values(Patch((layer,), part, "last", direct=True), WAY)  # type: ignore[arg-type]
        rows.append(total - 2 * direct)
    return np.mean(rows, axis=0)


def main() -> int:
    """Patch, and write the numbers."""
    name, path = sys.argv[1:3]
    demo = name == "demo"
    # base models have no template of their own; prompts are texts anyway
    subject = Subject.load(path, chat_template=None if demo else "builtin:plain")
    form = "chat" if demo else "text"
    settings = PatchSettings(sweeps=("windows", "direct"), directions=(WAY,), form=form)
    lines = demo_pairs() if demo else real_pairs()
    found = sweep(subject, lines, settings, WORK / name, name, lambda *now: print(*now, file=sys.stderr))
    about = found.about
    numbers = {
        "model": name,
        "pairs": len(about.pairs),
        "left_out": counted(about.rejects),
        "settings": asdict(settings),
        "claims": {key: asdict(value) for key, value in claims(found).items()},
        "mlp_windows_at_identity": {n: asdict(e) for n, e in found.windows("mlp", "identity", WAY).items()},
        "mlp_windows_at_all": {n: asdict(e) for n, e in found.windows("mlp", "all", WAY).items()},
        "attention_windows_at_all": {n: asdict(e) for n, e in found.windows("attn", "all", WAY).items()},
    }
    save(f"patching-{name}", numbers, folder=FOLDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
