"""Finds prompts that are nearly the same, so that no probe is tested on what it was fitted on.

Two texts are near duplicates if the sets of their four-character pieces overlap by 60 % (Jaccard). Case,
white space and system messages do not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

from guardrail.extract.fit.rows import LabelledPrompt
from guardrail.files.json_lines import refuse

PIECE = 4
OVERLAP = 0.6
BLOCK = 256
"""Rows that are compared with all others at a time; bounds memory."""
Groups = NDArray[np.intp]


def grouped(rows: Sequence[LabelledPrompt]) -> Groups:
    """[n]: the number of each prompt's group. Near duplicates, and prompts that name one group, share one."""
    edges = [*_near([row.text for row in rows]), *_named(rows)]
    first, second = np.array(edges, np.intp).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(len(rows), len(rows)))
    return connected_components(graph, directed=False)[1]


def refuse_leaks(rows: Sequence[LabelledPrompt]) -> None:
    """Raises ConfigError with every near duplicate across parts that the user named."""
    refuse(
        [
            f"{rows[j].place} (in `{rows[j].split}`) is nearly the same as {rows[i].place} (in "
            f"`{rows[i].split}`): leave one of them out, or put both into one part"
            for i, j in _near([row.text for row in rows])
            if rows[i].split != rows[j].split
        ]
    )


def _named(rows: Sequence[LabelledPrompt]) -> Iterator[tuple[int, int]]:
    members: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row.group:
            members.setdefault(row.group, []).append(i)
    for found in members.values():
        yield from pairwise(found)


def _near(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs i < j of near duplicates."""
    pieces = _pieces(texts)
    sizes = np.diff(pieces.indptr)
    for start in range(0, len(texts), BLOCK):
        shared = (pieces[start : start + BLOCK] @ pieces.T).tocoo()
        i, j = shared.row + start, shared.col
        near = (i < j) & (shared.data >= OVERLAP * (sizes[i] + sizes[j] - shared.data))
        yield from zip(i[near].tolist(), j[near].tolist(), strict=True)


def _pieces(texts: Sequence[str]) -> csr_matrix:
    """[n, pieces]: 1 if a text contains a piece. Texts shorter than a piece are one piece."""
    known: dict[str, int] = {}
    columns: list[int] = []
    starts = [0]
    for text in texts:
        found = {text[i : i + PIECE] for i in range(max(1, len(text) - PIECE + 1))}
        columns += [known.setdefault(piece, len(known)) for piece in sorted(found)]
        starts.append(len(columns))
    return csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=(len(texts), len(known)))
