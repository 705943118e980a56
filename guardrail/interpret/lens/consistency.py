"""The consistency score S of Ozaki et al. (NLP 2025), its bounds and its companions.

    S = sum over l in L' of  p_l * w_l * 1(token_l = gold),    w_l = 1 - (l - 1) / |L|,
    L' = the last floor(|L| R) layers,    R in 20, 40, 60, 80, 100 %

p_l is the probability of the likeliest token at layer l. (The paper calls l "the l-th token from the front
of the input"; everywhere else it is a layer.) What to know before reading it:

1. w falls with depth, so S rewards early answers: one that appears only after the last layer scores 1 / |L|.
2. The bound grows with R and |L| (`bound`), so S at different R or of models of different depth cannot be
   compared, and S never falls with R. `normalised` divides by the bound.
3. The paper's gold is the dataset's answer with a persona, and the model's own final token without one: then
   the last layer always hits, S > 0, and "with - without" mixes accuracy and consistency. Both golds are
   given here in both conditions.
"""

from __future__ import annotations

from math import floor
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guardrail.statistics.intervals import Numbers

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""The shares R of layers, from the last upwards."""
Weighting: TypeAlias = Literal["descending", "ascending"]


def weights(layers: int, weighting: Weighting = "descending") -> Numbers:
    """[L]: 1 to 1 / L as in the paper, or 1 / L to 1, which rewards late answers."""
    rising = np.arange(1, layers + 1) / layers
    return rising if weighting == "ascending" else rising[::-1]


def kept(layers: int, share: float, *, final: bool = True) -> NDArray[np.bool_]:
    """[L]: which layers count, with the last one or without it."""
    # 0.6 * 5 is a little more than 3 in binary, 0.58 * 50 a little less than 29
    found = np.arange(1, layers + 1) > layers - floor(layers * share + 1e-9)
    found[-1] &= final
    return found


def contributions(
    hits: NDArray[np.bool_], probabilities: Numbers, weighting: Weighting = "descending"
) -> Numbers:
    """[n, L]: what each layer adds to S."""
    return probabilities * hits * weights(hits.shape[1], weighting)


def consistency(
    hits: NDArray[np.bool_],
    probabilities: Numbers,
    share: float,
    *,
    weighting: Weighting = "descending",
    final: bool = True,
) -> Numbers:
    """[n]: S of each prompt over the last `share` of layers; `final=False` leaves the last layer out."""
    counted = kept(hits.shape[1], share, final=final)
    return contributions(hits, probabilities, weighting)[:, counted].sum(1)


def bound(layers: int, share: float, weighting: Weighting = "descending", *, final: bool = True) -> float:
    """The largest S: K (K + 1) / (2 L) for the last K layers, in the paper's weighting. May be 0."""
    return float(weights(layers, weighting)[kept(layers, share, final=final)].sum())


def first_hits(hits: NDArray[np.bool_], share: float = 1.0) -> Numbers:
    """The depth l / L of the first hit of each prompt that has one in the last `share` of layers."""
    layers = hits.shape[1]
    counted = hits & kept(layers, share)
    return (counted.argmax(1)[counted.any(1)] + 1) / layers


def bands(hits: NDArray[np.bool_], probabilities: Numbers) -> Numbers:
    """[n, shares]: what each further band of layers adds to S, from the last 20 % upwards."""
    found = [consistency(hits, probabilities, share) for share in SHARES]
    return np.diff(np.stack(found, 1), axis=1, prepend=0.0)
