"""A tiny model with a trait planted in it, a definition that asks for the trait, and a judge that sees it.

The trait is a direction that is added at layer 2 to every position of a row whose prompt holds a `+`; the
head turns it into the letter A, and the judge scores the share of As.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import TOKENIZER
from torch import Tensor, nn

from guardrail.extract.extraction import Extraction, Extractor
from guardrail.extract.methods import BUILT_IN
from guardrail.extract.rollouts import RolloutSettings
from guardrail.extract.settings import ExtractionSettings
from guardrail.extract.subject import Subject
from guardrail.plugins.protocols import COHERENCE, JudgeRequest
from guardrail.testing import tiny_model
from guardrail.traits import InstructionPair, TraitDefinition

PLANTED, WIDTH = 2, 32
MARK, LETTER = (TOKENIZER(char)["input_ids"][0] for char in "+A")
METHODS = {method.name: method for method in BUILT_IN}
CREATED = "2026-01-01T00:00:00+00:00"


def definition(name: str = "shouting", positive: str = "be +", negative: str = "be calm") -> TraitDefinition:
    """Two pairs of instructions and four questions of either set."""
    return TraitDefinition(
        name=name,
        description="Says A.",
        instructions=tuple(
            InstructionPair(positive=f"{positive}{end}", negative=f"{negative}{end}") for end in ("", " now")
        ),
        extraction=("who?", "what is it?", "where?", "when does it begin?"),
        evaluation=("why?", "how?", "which one?", "whose is it?"),
        rubric="{question} {answer}",
        sha256="0" * 64,
    )


class Planted(nn.Module):
    """A decoder block that adds the direction in the rows whose prompt had the mark."""

    def __init__(self, block: nn.Module, embedding: nn.Module, direction: Tensor) -> None:
        super().__init__()
        self.block, self.direction = block, direction
        self.rows: Tensor | None = None
        embedding.register_forward_hook(self.look)

    def look(self, _module: Any, inputs: tuple[Tensor, ...], _output: Any) -> None:
        if inputs[0].shape[1] > 1:
            self.rows = (inputs[0] == MARK).any(1)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        assert self.rows is not None
        return self.block(*args, **kwargs) + self.rows[:, None, None] * self.direction


def direction(norm: float = 100.0) -> np.ndarray:
    drawn = np.random.default_rng(3).normal(size=WIDTH)
    return (norm * drawn / np.linalg.norm(drawn)).astype(np.float32)


def planted_subject(rows: int = 64, norm: float = 100.0) -> Subject:
    """The trait is in the model, at layer 2."""
    model: Any = tiny_model()
    planted = torch.from_numpy(direction(norm))
    inner = model.model
    inner.layers[PLANTED - 1] = Planted(inner.layers[PLANTED - 1], inner.embed_tokens, planted)
    with torch.no_grad():
        model.lm_head.weight[LETTER] += 20 * planted / norm
    return Subject(model, TOKENIZER, rows=rows)


class LetterJudge:
    """The share of As; a reply is as coherent as it is not empty. Counts what it was asked."""

    name = "letters"

    def __init__(self) -> None:
        self.asked: list[JudgeRequest] = []

    def scores(self, requests: Sequence[JudgeRequest]) -> Sequence[float | None]:
        self.asked += requests
        return [self._score(request) for request in requests]

    def _score(self, request: JudgeRequest) -> float | None:
        if request.metric == COHERENCE:
            return 90.0
        return 100.0 * request.answer.count("A") / len(request.answer)


def settings(**changes: Any) -> ExtractionSettings:
    rollouts = RolloutSettings(samples=3, max_new_tokens=8, batch=8)
    return ExtractionSettings(**{"rollouts": rollouts, "minimum": 5, "probe": "contrast", **changes})


def extract(
    folder: Path,
    definitions: Sequence[TraitDefinition] | None = None,
    *,
    subject: Subject | None = None,
    judge: Any = None,
    mixed: Any = (),
    report: Any = lambda *_: None,
    **changes: Any,
) -> Extraction:
    """A whole extraction in a folder."""
    extractor = Extractor(
        subject or planted_subject(),
        judge or LetterJudge(),
        definitions or [definition()],
        METHODS,
        settings(**changes),
        folder,
        report,
    )
    return extractor.run(CREATED, mixed)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, by name; not the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def run_to_file(folder: str, samples: int) -> None:
    """What a process that gets killed does."""
    torch.set_num_threads(1)
    rollouts = RolloutSettings(samples=samples, max_new_tokens=8, batch=8)
    found = extract(Path(folder), rollouts=rollouts)
    found.vectors.save(Path(folder) / "vectors.safetensors")
