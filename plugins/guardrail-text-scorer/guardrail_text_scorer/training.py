"""Fits a classifier to labelled conversations. The only part that needs scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guardrail.errors import ConfigError, PluginError
from guardrail_text_scorer.classifier import TextClassifier
from guardrail_text_scorer.features import vector

SIZE = 1 << 14


@dataclass(frozen=True, slots=True)
class Example:
    """The turns of a conversation that count, and whether it has what is looked for."""

    texts: tuple[str, ...]
    label: bool


def read_examples(path: str | Path) -> list[Example]:
    """JSON Lines: {"text": ...} or {"messages": [...]}, each with "label": 0 or 1."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [_example(line, f"{path}:{i}") for i, line in enumerate(lines, 1) if line.strip()]


def _example(line: str, place: str) -> Example:
    try:
        row = json.loads(line)
        if row["label"] not in (0, 1):
            raise ValueError(f"label {row['label']!r}")
        return Example(tuple(_texts(row)), bool(row["label"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{place}: needs "label" (0 or 1) and "text" or "messages": {error!r}') from error


def _texts(row: dict) -> Iterator[str]:
    if "messages" not in row:
        yield row["text"]
        return
    yield from (turn["content"] for turn in row["messages"] if turn["role"] in ("system", "user"))


def train(name: str, examples: Sequence[Example], size: int = SIZE, strength: float = 10.0) -> TextClassifier:
    """Logistic regression, both labels weighing the same. `strength` is C: smaller is smoother."""
    labels = [example.label for example in examples]
    if len(set(labels)) < 2:
        raise ConfigError("training needs examples with label 0 and with label 1")
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise PluginError("training needs scikit-learn: install guardrail-text-scorer[train]") from error
    fitted = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    fitted.fit(_matrix([example.texts for example in examples], size), labels)
    return TextClassifier(name, fitted.coef_[0].astype(np.float32), float(fitted.intercept_[0]))


def _matrix(conversations: Sequence[Iterable[str]], size: int) -> object:
    from scipy.sparse import csr_matrix

    rows = [vector(texts, size) for texts in conversations]
    indices = np.concatenate([indices for indices, _ in rows])
    values = np.concatenate([values for _, values in rows])
    starts = np.cumsum([0, *(len(indices) for indices, _ in rows)])
    return csr_matrix((values, indices, starts), shape=(len(rows), size))
