"""Patches every pair of prompts, in both directions; keeps what it has done, pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from guardrail.errors import ConfigError
from guardrail.extract.journal import Report, Row, silent
from guardrail.extract.subject import Subject
from guardrail.interpret.forms import Form, notes
from guardrail.interpret.patching.beginnings import parted
from guardrail.interpret.patching.effects import Answers, Moved, answers, moved
from guardrail.interpret.patching.pairs import Pair, PairLine, Reject, aligned
from guardrail.interpret.patching.patches import Patch, Shape, SweepSettings, columns, patches
from guardrail.interpret.patching.results import DIRECTIONS, Described, Kept, PatchResult
from guardrail.interpret.patching.runs import Placed, Recorded, patched, record, shape_of
from guardrail.interpret.resuming import Work
from guardrail.types import Array

JOURNAL = "patch"
UNCHANGED = "the persona changes no answer"
CLOSE = "the persona changes the answer by too little"
HEADLESS = "the heads of this model cannot be told apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSettings(SweepSettings):
    """What is swept, and how pairs are asked. least_gap: logits between the two answers of a pair."""

    directions: tuple[str, ...] = DIRECTIONS
    form: Form = "chat"
    least_gap: float = 0.5


def sweep(
    subject: Subject,
    lines: Sequence[PairLine],
    settings: PatchSettings,
    work: Path,
    name: str = "",
    report: Report = silent,
) -> PatchResult:
    """Patch all pairs on which the persona changes the answer. An interrupted sweep in `work` is resumed.

    Raises ExtractionError if `work` was begun with other pairs, settings or another model, ConfigError if the
    sweeps have nothing to patch.
    """
    begun = perf_counter()
    asked, rejects = aligned(subject, lines, settings.form)
    pairs = parted(subject, asked)
    shape = shape_of(subject)
    if not (made := patches(shape, settings)) and settings.sweeps:
        raise ConfigError(f"{HEADLESS}; choose another sweep")
    run = _Run(subject, pairs, made, settings)
    rows = Work(work, report).rows(JOURNAL, "patching", run.recipe, len(pairs), run.rows)
    kept = [Kept.model_validate(row["kept"]) for row in rows if "kept" in row]
    rejects += [Reject(**row) for row in rows if "reason" in row]
    seconds = perf_counter() - begun
    return _result(name, run, shape, kept, rejects, [row for row in rows if "kept" in row], seconds)


class _Run:
    """The rows of the journal: one pair after another."""

    def __init__(
        self, subject: Subject, pairs: Sequence[Pair], made: Sequence[Patch], settings: PatchSettings
    ) -> None:
        self.subject, self.pairs, self.patches, self.settings = subject, pairs, made, settings

    @property
    def recipe(self) -> Row:
        """What a resumed sweep has to agree with."""
        asked = [[list(pair.source), list(pair.target), list(pair.answers)] for pair in self.pairs]
        return {"settings": asdict(self.settings), "model": self.subject.fingerprint.weights, "pairs": asked}

    def rows(self, numbers: Sequence[int]) -> list[Row]:
        """What is found of some pairs."""
        return [self._row(self.pairs[number]) for number in numbers]

    def _row(self, pair: Pair) -> Row:
        source, target = record(self.subject, pair.source), record(self.subject, pair.target)
        found = answers(pair.answers, source, target)
        if not found.differ:
            both = self.subject.tokenizer.decode([found.source])
            return _rejected(pair, UNCHANGED, f"both answer {both!r}")
        if abs(found.gap) < self.settings.least_gap:
            reason = f"{CLOSE} (less than {self.settings.least_gap:g} logits)"
            return _rejected(pair, reason, f"{abs(found.gap):.2g} logits")
        moves = [self._moved(pair, found, source, target, way) for way in self.settings.directions]
        return {"kept": self._kept(pair, found).model_dump(), "moved": [asdict(move) for move in moves]}

    def _kept(self, pair: Pair, found: Answers) -> Kept:
        source, target = (self.subject.tokenizer.decode([token]) for token in (found.source, found.target))
        return Kept(
            name=pair.name,
            source=source,
            target=target,
            gap=found.gap,
            tokens=pair.tokens,
            identity=pair.span,
        )

    def _moved(self, pair: Pair, found: Answers, source: Recorded, target: Recorded, way: str) -> Moved:
        """What every patch does; None (NaN) for those whose tokens the pair lacks."""
        base, donor, own, other = target, source, found.target, found.source
        if way == "noising":
            base, donor, own, other = source, target, found.source, found.target
        placed = [Placed(patch, columns(patch.where, pair, self.settings.near)) for patch in self.patches]
        there = [i for i, one in enumerate(placed) if one.columns]
        blank = [None] * len(placed)
        result = Moved(list(blank), list(blank), list(blank))  # pyright: ignore[reportArgumentType]
        for rows, logits in patched(self.subject, base, donor, [placed[i] for i in there]):
            part = moved(logits, base, donor, own, other, pair.answers)
            for at, row in enumerate(rows):
                i = there[row]
                result.effects[i], result.flips[i], result.kl[i] = (
                    part.effects[at],
                    part.flips[at],
                    part.kl[at],
                )
        return result


def _rejected(pair: Pair, reason: str, detail: str) -> Row:
    return asdict(Reject(pair.name, reason, detail))


def _result(
    name: str,
    run: _Run,
    shape: Shape,
    kept: Sequence[Kept],
    rejects: Sequence[Reject],
    rows: Sequence[Row],
    seconds: float,
) -> PatchResult:
    settings = run.settings
    about = Described(
        model=name,
        fingerprint=run.subject.fingerprint,
        form=settings.form,
        layers=shape.layers,
        heads=shape.heads,
        near=settings.near,
        window=settings.window,
        directions=settings.directions,
        patches=tuple(run.patches),
        pairs=tuple(kept),
        rejects=tuple(rejects),
        seconds=seconds,
        notes=(*notes(run.subject, settings.form), *_left_out(shape, settings)),
    )
    return PatchResult(about, *(_array(run, rows, what) for what in ("effects", "flips", "kl")))


def _left_out(shape: Shape, settings: PatchSettings) -> Iterator[str]:
    if not shape.heads and "heads" in settings.sweeps:
        yield f"{HEADLESS}: the sweep over heads is left out"


def _array(run: _Run, rows: Sequence[Row], what: str) -> Array:
    """[directions, patches, pairs]."""
    ways = len(run.settings.directions)
    if not rows:
        return np.zeros((ways, len(run.patches), 0), np.float32)
    return np.stack([np.array([move[what] for move in row["moved"]], np.float32) for row in rows], axis=-1)
