"""Is it a persona that early layers put at the identity's tokens, or are they only reading a word?

The same word is read in a sentence that makes nobody anything ("The word is nurse"), and what a layer makes
of it there is put at the identity's tokens. If that works as well as the values of the persona's own prompt,
the layer does not depend on who is meant to be what. Beside it: early layers without the first, attention,
and late layers at the last token, together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from guardrail.engines.transformers.activations import Component, Site
from guardrail.extract.subject import Subject
from guardrail.interpret.forms import form_of, text_ids
from guardrail.interpret.patching import PairLine, Patch
from guardrail.interpret.patching.beginnings import parted
from guardrail.interpret.patching.effects import answers, moved
from guardrail.interpret.patching.pairs import Pair, aligned
from guardrail.interpret.patching.patches import columns
from guardrail.interpret.patching.results import DIRECTIONS
from guardrail.interpret.patching.runs import Placed, Recorded, patched, record

PREFIX = "The word is"
FIRST = 4
"""How many layers are early."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A patch; `lone`: with values of the word in the other sentence."""

    patch: Patch
    lone: bool = False


def trials(layers: int) -> dict[str, Trial]:
    """All of them, by name."""

    def made(part: Component, first: int, last: int, where: str = "identity", *, lone: bool = False) -> Trial:
        return Trial(Patch(tuple(range(first, last + 1)), part, where), lone)

    third = layers // 3
    late = layers - third + 1
    return {
        "embedding": made("resid", 0, 0),
        "MLP 1": made("mlp", 1, 1),
        "MLPs 1 to 4": made("mlp", 1, FIRST),
        "MLPs 1 to 4 at all tokens": made("mlp", 1, FIRST, "all"),
        "last four MLPs": made("mlp", layers - FIRST + 1, layers),
        "MLPs 2 to 4": made("mlp", 2, FIRST),
        "attention 1 to 4": made("attn", 1, FIRST),
        "MLP 1, word alone": made("mlp", 1, 1, lone=True),
        "MLPs 1 to 4, word alone": made("mlp", 1, FIRST, lone=True),
        "residual 1, word alone": made("resid", 1, 1, lone=True),
        "residual 4, word alone": made("resid", FIRST, FIRST, lone=True),
        "late attention at the last token": made("attn", late, layers, "last"),
        "late MLPs at the last token": made("mlp", late, layers, "last"),
        "middle attention at the last token": made("attn", third + 1, late - 1, "last"),
        "early attention at the last token": made("attn", 1, third, "last"),
    }


def run(model: Subject, chosen: Sequence[PairLine], path: Path) -> None:
    """All trials on all pairs, both ways, into a file: `{way: {trial: [effects]}}` and the pairs' names."""
    if path.is_file():
        return
    pairs = parted(model, aligned(model, chosen, form_of(model))[0])
    made = trials(model.layers)
    rows = [_effects(model, pair, list(made.values())) for pair in pairs]
    ways = {
        way: {name: [row[i][t] for row in rows] for t, name in enumerate(made)}
        for i, way in enumerate(DIRECTIONS)
    }
    path.write_text(json.dumps({"names": [pair.name for pair in pairs], "effects": ways}))


def _effects(model: Subject, pair: Pair, made: Sequence[Trial]) -> tuple[list[float], list[float]]:
    """Effects of all trials, denoising and noising."""
    source, target = record(model, pair.source), record(model, pair.target)
    found = answers(pair.answers, source, target)
    own = found.target, found.source
    there = _tried(model, pair, made, target, source, pair.source, own)
    back = _tried(model, pair, made, source, target, pair.target, own[::-1])
    return there, back


def _tried(
    model: Subject,
    pair: Pair,
    made: Sequence[Trial],
    base: Recorded,
    donor: Recorded,
    ids: Sequence[int],
    own: tuple[int, int],
) -> list[float]:
    lone = _lone(model, pair, donor, ids)
    effects = [0.0] * len(made)
    for given, wanted in ((donor, False), (lone, True)):
        places = [i for i, trial in enumerate(made) if trial.lone == wanted]
        placed = [Placed(made[i].patch, columns(made[i].patch.where, pair, 0)) for i in places]
        for rows, logits in patched(model, base, given, placed):
            part = moved(logits, base, donor, *own, pair.answers).effects
            for row, effect in zip(rows, part, strict=True):
                effects[places[row]] = effect
    return effects


def _lone(model: Subject, pair: Pair, donor: Recorded, ids: Sequence[int]) -> Recorded:
    """The donor's run, in which the identity's tokens hold what they hold in the other sentence."""
    start, end = pair.span
    alone = record(model, (*text_ids(model, PREFIX), *ids[start:end]))

    def moved_in(site: Site) -> object:
        values = donor.values[site].clone()
        values[start:end] = alone.values[site][start - end :]
        return values

    return replace(donor, values={site: moved_in(site) for site in donor.values})
