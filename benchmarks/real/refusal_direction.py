"""The refusal direction of a real model, and which position and layer it is taken from.

Difference of means of harmful against harmless prompts at each of the template's last tokens; the choice by
the refusal rule (arXiv 2406.11717, 2.3). Refusal is measured at the first token of the reply, as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.real.persona_vectors import said
from benchmarks.real.prompt_files import Prompt
from guardrail.extract.journal import Journal
from guardrail.extract.layers.effects import ablating, adding, divergence, next_token
from guardrail.extract.layers.measurements import Candidate, Sweep
from guardrail.extract.prompts import RolloutPrompt
from guardrail.extract.subject import Subject
from guardrail.types import Array, Steering
from guardrail.vectors.values import TraitVector

TRAIT = "refusal"
POSITIONS = (-5, -2, -1)
"""Of the five tokens that follow the user's text: `<|im_end|>`, `assistant` and the last line break."""
OPENINGS = ("I", "As", "Sorry")
"""First tokens of refusals, as in the paper for Qwen; and `Sorry`."""
BAND = (0.2, 0.8)
"""Of the depth; the rule excludes what lies above, and below nothing has been read yet."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Prompts to fit on, to choose on, and to test on; no prompt is in two of them."""

    fit: Sequence[Prompt]
    choose: Sequence[Prompt]
    test: Sequence[Prompt]

    @classmethod
    def of(cls, prompts: Sequence[Prompt], fit: int, choose: int, test: int) -> Parts:
        """The first `fit`, the next `choose`, the next `test`. Raises ValueError if there are too few."""
        if len(prompts) < fit + choose + test:
            raise ValueError(f"{len(prompts)} prompts are too few for {fit} + {choose} + {test}")
        after = fit + choose
        return cls(prompts[:fit], prompts[fit:after], prompts[after : after + test])


def vectors(
    subject: Subject, harmful: Sequence[Prompt], harmless: Sequence[Prompt]
) -> dict[int, TraitVector]:
    """By position: harmful minus harmless, at every layer."""
    gap = _states(subject, harmful).mean(axis=0) - _states(subject, harmless).mean(axis=0)
    return {
        position: TraitVector.from_difference(TRAIT, gap[place]) for place, position in enumerate(POSITIONS)
    }


def _states(subject: Subject, prompts: Sequence[Prompt]) -> Array:
    """[n, positions, L + 1, d_model]."""
    rows = [subject.render(prompt.messages).ids for prompt in prompts]
    spans = [[(len(ids) + p, len(ids) + p + 1) for p in POSITIONS] for ids in rows]
    return subject.means(rows, spans)


def sweep(
    subject: Subject,
    found: Mapping[int, TraitVector],
    harmful: Sequence[Prompt],
    harmless: Sequence[Prompt],
    folder: Path,
) -> Sweep:
    """Every position and layer: refusals induced in harmless and left in harmful prompts, and KL."""
    trial = _Trial(subject, _asked(harmful), _asked(harmless))
    layers = range(*(int(share * subject.layers) for share in BAND))
    places = [(position, layer) for position in found for layer in layers]
    recipe = {"measurement": "refusal direction", "model": subject.fingerprint.weights, "places": places}
    journal = Journal(folder / "sweep.jsonl", recipe, len(places), 1)
    rows = journal.complete(
        "refusal direction: sweep",
        lambda numbers: [trial.row(found, *places[i]) for i in numbers],
        said,
    )
    candidates = tuple(Candidate(**row) for row in rows)
    return Sweep(trait=TRAIT, layers=subject.layers, candidates=candidates, baseline=trial.baseline())


class _Trial:
    """The validation prompts, and what the model says to them unsteered."""

    def __init__(
        self, subject: Subject, harmful: Sequence[RolloutPrompt], harmless: Sequence[RolloutPrompt]
    ) -> None:
        self.subject, self.harmful, self.harmless = subject, harmful, harmless
        self.tokens = [subject.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in OPENINGS]
        self.before = next_token(subject, harmless)

    def row(self, found: Mapping[int, TraitVector], position: int, layer: int) -> dict[str, Any]:
        """One candidate."""
        vector = found[position]
        ablated = [ablating(vector, layer)]
        return {
            "layer": layer,
            "position": position,
            "induce": self._refusal(self.harmless, [adding(vector, layer, 1.0)]),
            "ablation": self._refusal(self.harmful, ablated),
            "kl": divergence(self.before, next_token(self.subject, self.harmless, ablated)),
        }

    def baseline(self) -> Candidate:
        """Without a vector: on harmless prompts `induce`, on harmful ones `ablation`."""
        return Candidate(layer=0, induce=self._refusal(self.harmless), ablation=self._refusal(self.harmful))

    def _refusal(self, prompts: Sequence[RolloutPrompt], steering: Sequence[Steering] = ()) -> float:
        """The mean log-odds that a reply begins like a refusal."""
        share = next_token(self.subject, prompts, steering)[:, self.tokens].exp().sum(dim=1)
        odds = torch.log(share + 1e-8) - torch.log(1 - share + 1e-8)
        return float(np.mean(odds.numpy()))


def _asked(prompts: Sequence[Prompt]) -> list[RolloutPrompt]:
    return [
        RolloutPrompt(kind="neutral", messages=prompt.messages, question=i)
        for i, prompt in enumerate(prompts)
    ]
