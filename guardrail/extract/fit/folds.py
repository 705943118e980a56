"""Says what is held out of what, so that the choice of a probe carries over to other prompts.

The prompts of one class and one source are a stratum. There are two checks, which count the same. In the
first (unseen sources) a fold holds out one whole stratum of each class: the probe has then seen neither
that kind of harm nor that kind of harmless prompt. Strata whose prompts name categories are held out by
whole categories, a share of them in every fold, because without any of them (all look-alikes, say) the fold
would show another probe than the one that is made. So is the only stratum of a class. In the second check
(new prompts of known sources) all strata are held out like that; prompts without a category count by near
duplicates. Alone, the first would choose by what a few very different sources happen to share, the second
by their style.

In both, near duplicates of what is held out are left out of the training part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from guardrail.extract.fit.rows import MINIMUM, LabelledPrompt

FEWEST, MOST = 4, 8
"""Folds. Whole strata beyond that share folds, which bounds the work."""
OTHERS = "other sources"
UNSEEN, KNOWN = "unseen sources", "new prompts of known sources"
Rows = NDArray[np.intp]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stratum:
    """The prompts of one class from one source. `rows` are indices."""

    source: str
    positive: bool
    rows: Rows = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """`train` to fit on, `test` to score. Both are indices; a prompt is in `test` of one fold only."""

    name: str
    train: Rows = field(repr=False)
    test: Rows = field(repr=False)


def strata_of(given: Sequence[LabelledPrompt], labels: NDArray[np.bool_], rows: Rows) -> tuple[Stratum, ...]:
    """The strata of these rows, larger ones first. Sources with fewer than 20 prompts of a class are one."""
    found: list[Stratum] = []
    for positive in (True, False):
        own: dict[str, list[int]] = {}
        for i in rows[labels[rows] == positive].tolist():
            own.setdefault(given[i].source, []).append(i)
        small = [name for name, members in own.items() if len(members) < MINIMUM]
        if len(small) > 1:
            own[OTHERS] = sorted(i for name in small for i in own.pop(name))
        ordered = sorted(own.items(), key=lambda item: (-len(item[1]), item[0]))
        found += [Stratum(name, positive, np.array(members, np.intp)) for name, members in ordered]
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Folds that together score every prompt once."""

    name: str
    folds: tuple[Fold, ...]


def checks(
    given: Sequence[LabelledPrompt], strata: Sequence[Stratum], groups: Rows, seed: int
) -> tuple[Check, ...]:
    """Both checks, or the second alone if no whole source can be held out.

    groups: [n], for all rows; a group is never on both sides of a fold.
    """
    sides = [[s for s in strata if s.positive is side] for side in (True, False)]
    spread = [s for side in sides for s in side if len(side) == 1 or _categories(given, s) >= FEWEST]
    whole = [[s for s in side if s not in spread] for side in sides]
    rng = np.random.default_rng(seed)
    known = Check(name=KNOWN, folds=_folds([[], []], strata, given, strata, groups, rng))
    if not any(whole):
        return (known,)
    return Check(name=_unseen(whole), folds=_folds(whole, spread, given, strata, groups, rng)), known


def _unseen(whole: Sequence[Sequence[Stratum]]) -> str:
    """What is held out whole: of both classes, or of the one that has more than one source."""
    if all(whole):
        return UNSEEN
    return f"{UNSEEN} {'with' if whole[0] else 'without'} the trait"


def _folds(
    whole: Sequence[Sequence[Stratum]],
    spread: Sequence[Stratum],
    given: Sequence[LabelledPrompt],
    strata: Sequence[Stratum],
    groups: Rows,
    rng: np.random.Generator,
) -> tuple[Fold, ...]:
    count = min(max(*map(len, whole), FEWEST if spread else 0), MOST)
    parts = [list(_whole(side, count)) for side in whole]
    parts.append(list(_spread(given, spread, groups, count, rng)))
    everything = np.concatenate([stratum.rows for stratum in strata])
    return tuple(
        _fold([side[i] for side in parts if i < len(side)], everything, groups) for i in range(count)
    )


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    rows: Rows


def _fold(parts: Sequence[_Part], everything: Rows, groups: Rows) -> Fold:
    test = np.sort(np.concatenate([part.rows for part in parts]))
    near = np.isin(groups[everything], groups[test])
    names = " | ".join(part.name for part in parts if part.name)
    return Fold(name=names, train=np.sort(everything[~near]), test=test)


def _whole(strata: Sequence[Stratum], count: int) -> Iterator[_Part]:
    """One stratum in each fold, or several if there are more strata than folds."""
    lots: list[list[Stratum]] = [[] for _ in range(min(len(strata), count))]
    for stratum in strata:
        min(lots, key=lambda lot: sum(map(len, lot))).append(stratum)
    for lot in lots:
        yield _Part(" + ".join(_named(s) for s in lot), np.concatenate([s.rows for s in lot]))


def _spread(
    given: Sequence[LabelledPrompt],
    strata: Sequence[Stratum],
    groups: Rows,
    count: int,
    rng: np.random.Generator,
) -> Iterator[_Part]:
    """About an equal share of the categories in each fold; of near duplicates if there are no categories."""
    rows = np.concatenate([s.rows for s in strata]) if strata else np.array([], np.intp)
    keys = np.array([given[i].category or f"#{groups[i]}" for i in rows.tolist()])
    names, sizes = np.unique(keys, return_counts=True)
    load, fold_of = np.zeros(count), dict[str, int]()
    for i in rng.permutation(len(names)).tolist():
        fold_of[str(names[i])] = place = int(load.argmin())
        load[place] += sizes[i]
    places = np.array([fold_of[str(key)] for key in keys])
    told = ", ".join(dict.fromkeys(_named(s) for s in strata))
    for number in range(count if strata else 0):
        yield _Part(f"part {number + 1} of {told}", rows[places == number])


def _categories(given: Sequence[LabelledPrompt], stratum: Stratum) -> int:
    return len({given[i].category for i in stratum.rows.tolist()})


def _named(stratum: Stratum) -> str:
    return stratum.source or "prompts without a source"


def weights(strata: Sequence[Stratum], rows: Rows, positive: bool) -> Numbers:
    """[n]: the weights of rows of one class, which sum to 1; each stratum among them counts the same."""
    found = np.zeros(len(rows))
    for stratum in strata:
        inside = np.isin(rows, stratum.rows)
        if stratum.positive is positive and inside.any():
            found[inside] = 1 / inside.sum()
    return found / found.sum()
