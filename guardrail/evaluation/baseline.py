"""A baseline that sees only the text: TF-IDF and logistic regression. A probe that does not beat it may be
just a costly keyword detector.

It learns from training data if there is any. Otherwise it is cross-validated by group, so that no group is
on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from guardrail.statistics.intervals import Numbers

FOLDS = 5
SEED = 0


def available() -> bool:
    """Whether scikit-learn is installed (the extra `report`)."""
    return find_spec("sklearn") is not None


def learnt(texts: Sequence[str], labels: Sequence[bool], unseen: Sequence[str]) -> Numbers | None:
    """[n]: log-odds of the unseen texts; None if the training data has only one class."""
    if len(set(labels)) < 2:
        return None
    return _classifier().fit(list(texts), np.asarray(labels, dtype=int)).decision_function(list(unseen))


def cross_validated(texts: Sequence[str], labels: Sequence[bool], groups: Sequence[str]) -> Numbers | None:
    """[n]: log-odds of each text, from a classifier that never saw a text of its group.

    None if a class has fewer than two groups. Folds are stratified and seeded.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    target, keys = np.asarray(labels, dtype=int), np.asarray(groups)
    folds = min(FOLDS, *(len(np.unique(keys[target == label])) for label in (0, 1)))
    if folds < 2:
        return None
    result = np.full(len(target), np.nan)
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=SEED).split(
        target, target, keys
    ):
        if len(set(target[train].tolist())) < 2:
            return None
        fitted = _classifier().fit([texts[i] for i in train], target[train])
        result[test] = fitted.decision_function([texts[i] for i in test])
    return result


def _classifier() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    # characters too, for languages without spaces between words
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=20_000),
    )
    return make_pipeline(features, LogisticRegression(class_weight="balanced", max_iter=1000))
