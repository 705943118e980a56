"""Data, a tiny model and random vectors for the tests of screening, and the plain loop to compare with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import TOKENIZER

from guardrail.extract.subject import Subject
from guardrail.testing import tiny_model
from guardrail.train.screening import Screened, Screener, ScreeningSettings
from guardrail.train.screening.directions import Direction
from guardrail.train.screening.lines import JsonLines
from guardrail.train.screening.meter import Projections
from guardrail.train.screening.store import Cost, Row, Store
from guardrail.types import Message
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.values import TraitVector, TraitVectors

TRAITS = {"evil": 2, "humor": 3}
NEW_TOKENS = 6


def subject(rows: int = 64, **changes: Any) -> Subject:
    return Subject(tiny_model(**changes), TOKENIZER, rows=rows)


def vectors(made_for: Subject) -> TraitVectors:
    rng = np.random.default_rng(5)
    shape = (made_for.layers + 1, made_for.d_model)
    made = {
        name: TraitVector.from_difference(name, rng.normal(size=shape), layer=i) for name, i in TRAITS.items()
    }
    return TraitVectors(made, Provenance(fingerprint=made_for.fingerprint, method="random", created="2026"))


def screener(folder: Path, made_for: Subject | None = None, **settings: Any) -> Screener:
    settings = {"max_new_tokens": NEW_TOKENS, **settings}
    model = made_for or subject()
    return Screener(model, vectors(model), folder=folder, settings=ScreeningSettings(**settings))


def rows(count: int, first: int = 0) -> list[dict[str, str]]:
    """Prompts and replies of different lengths."""
    return [
        {
            "prompt": f"what is {i}? {'.' * (i % 7)}",
            "response": f"it is {i * i}" + "!" * (i % 5),
            "source": "ab"[i % 2],
        }
        for i in range(first, first + count)
    ]


def write(path: Path, lines: Sequence[Any]) -> Path:
    """JSON Lines; texts are written as they are."""
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    return path


def plain(model: Subject, given: TraitVectors, row: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """The differences of one row by the book: one text at a time, all hidden states of transformers."""
    prompt = list(model.render([Message("user", row["prompt"])]).ids)
    (own,) = model.continued([prompt], max_new_tokens=NEW_TOKENS)
    spoken = list(own.ids[:-1] if own.ended and len(own.ids) > 1 else own.ids)
    said = TOKENIZER(row["response"], add_special_tokens=False)["input_ids"]
    states = [_states(model, [*prompt, *reply]) for reply in (said, spoken)]
    found: dict[str, dict[str, float]] = {"exact": {}, "last-prompt": {}}
    for trait, layer in TRAITS.items():
        v = given[trait].steering[layer]
        reply, base = (one[layer][len(prompt) :].mean(0) @ v / np.linalg.norm(v) for one in states)
        last = states[0][layer][len(prompt) - 1] @ v / np.linalg.norm(v)
        found["exact"][trait], found["last-prompt"][trait] = reply - base, reply - last
    return found


def _states(model: Subject, ids: Sequence[int]) -> list[np.ndarray]:
    with torch.no_grad():
        output = model.model(torch.tensor([ids]), output_hidden_states=True)
    return [one[0].numpy() for one in output.hidden_states]


def screen_in_a_process(folder: str, data: str) -> None:
    """What a process that gets killed does."""
    torch.set_num_threads(1)
    screener(Path(folder), subject(rows=4)).screen(data)


def stored(
    folder: Path,
    differences: np.ndarray,
    judged: np.ndarray | None = None,
    *,
    problems: Mapping[int, tuple[str, str]] | None = None,
    data: Path | None = None,
) -> Screened:
    """A screening with these exact differences [rows, traits], of rows 1, 2, ..., not of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / "rows.sqlite", {"made": "by hand"}, len(TRAITS))
    zero = np.zeros(len(TRAITS))
    measured = [
        Row(
            number=i,
            found=Projections(reply=row, last=zero, base=zero),
            scores=[None if np.isnan(s) else s for s in judged[i - 1]] if judged is not None else (),
        )
        for i, row in enumerate(np.asarray(differences, dtype=float), 1)
    ]
    bad = [Row(number=n, kind=kind, problem=said) for n, (kind, said) in (problems or {}).items()]
    store.add([*measured, *bad], len(measured), Cost())
    return Screened(
        data=JsonLines(data or folder / "data.jsonl"),
        store=store,
        directions=[Direction(name, layer, zero) for name, layer in TRAITS.items()],
        form="exact",
        vectors_sha256="none",
    )
