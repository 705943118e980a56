"""`python -m benchmarks.real.tool_results`: injections in tool results, by what the probe reads, on SmolLM2.

Every kind of tool result is left out in turn: `vectors fit` chooses and fits on the other nine, with one
read-out at a time. Prompts, read-outs and measures were fixed before anything was measured.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.real import results
from benchmarks.real.detectors import Detector, Probe, tf_idf
from benchmarks.real.models import SMOLLM2
from benchmarks.real.prompt_files import Prompt, read
from benchmarks.real.states import stored
from benchmarks.real.subjects import subject
from guardrail.statistics import intervals
from guardrail.statistics.intervals import Estimate, Numbers
from guardrail.statistics.metrics import auroc
from guardrail.types import Position

PROMPTS = Path(__file__).parent / "prompts" / "tool_results" / "injections.jsonl"
READ: tuple[Position, ...] = ("last", "tool_mean")
"""Not the user's text: it comes before the result, so its states are the same with and without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One detector. The AUROCs are means over the kinds left out, whose interval is over kinds.

    pairs: in which the injected result scores higher than the same result with a harmless sentence.
    """

    detector: str
    auroc: Estimate
    look_alikes: Estimate
    pairs: Estimate
    chosen: Sequence[str] = ()


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    prompts = read(PROMPTS, "injection")
    messages = [prompt.messages for prompt in prompts]
    states = stored(subject(SMOLLM2), "tool results", messages, results.RUNS / "tool-states", READ)
    probes = {f"vectors fit, {position}": Probe(states, (position,), 1) for position in READ}
    detectors: dict[str, Detector] = {**probes, "TF-IDF": tf_idf}
    rows = [measured(name, detector, prompts) for name, detector in detectors.items()]
    sizes = Counter(prompt.category for prompt in prompts)
    saved = {"model": SMOLLM2.name, "dtype": "bfloat16", "sizes": sizes, "detectors": rows}
    print(results.save("tool-results", saved))
    return 0


def measured(name: str, detector: Detector, prompts: Sequence[Prompt]) -> Measured:
    """One detector on every kind that it has not seen."""
    sources = np.array([prompt.source for prompt in prompts])
    # a category is what keeps rows together in the fit, and here it would tell the label
    plain = [replace(prompt, category="") for prompt in prompts]
    scores = np.empty(len(prompts))
    for source in np.unique(sources):
        out = sources == source
        scores[out] = detector(plain, np.flatnonzero(~out))[out]
    return Measured(
        detector=name,
        auroc=_over_kinds(scores, prompts, ("plain", "look-alike")),
        look_alikes=_over_kinds(scores, prompts, ("look-alike",)),
        pairs=intervals.rate(_higher(scores, prompts)),
        chosen=tuple(detector.chosen) if isinstance(detector, Probe) else (),
    )


def _over_kinds(scores: Numbers, prompts: Sequence[Prompt], harmless: tuple[str, ...]) -> Estimate:
    sources, kinds = (np.array([getattr(one, key) for one in prompts]) for key in ("source", "category"))
    areas = [
        auroc(scores[own & (kinds == "injection")], scores[own & np.isin(kinds, harmless)]).value
        for own in (sources == source for source in np.unique(sources))
    ]
    return intervals.mean(areas)


def _higher(scores: Numbers, prompts: Sequence[Prompt]) -> list[bool]:
    pairs: dict[str, dict[bool, float]] = {}
    for prompt, score in zip(prompts, scores, strict=True):
        pairs.setdefault(prompt.pair, {})[prompt.harm] = score
    return [both[True] > both[False] for both in pairs.values()]


if __name__ == "__main__":
    sys.exit(main())
