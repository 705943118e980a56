"""States of prompts at every layer and position, read once and kept in files.

The files are named after the model and the prompts, so that another fit of the same prompts finds them, and
a reading that was interrupted goes on. Each holds a block of prompts of similar length, [positions, L + 1,
rows, d_model] float32, of which one layer at a time is looked at: memory does not grow with the number of
layers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic

import numpy as np

from guardrail.engines import Prompt
from guardrail.engines.transformers.batches import bucketed
from guardrail.errors import ExtractionError, PromptError
from guardrail.extract.fit.rows import LabelledPrompt
from guardrail.extract.journal import Report, silent
from guardrail.extract.subject import Subject
from guardrail.types import POSITIONS, Array, Place, Position

BLOCK = 64
STAGE = "reading prompts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The prompts that the model can read, as token ids with spans, and the problems of the others.

    `positions`: those that are there in any prompt.
    """

    rows: tuple[LabelledPrompt, ...]
    positions: tuple[Position, ...]
    prompts: tuple[Prompt, ...] = field(repr=False)
    problems: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """How many tokens are read."""
        return sum(len(prompt.ids) for prompt in self.prompts)


def rendered(
    subject: Subject, rows: Sequence[LabelledPrompt], positions: Sequence[Position] = POSITIONS
) -> Rendered:
    """Render prompts as the guard does. Never raises for a prompt that cannot be read or is too long."""
    good: list[tuple[LabelledPrompt, Prompt]] = []
    problems: list[str] = []
    for row in rows:
        try:
            good.append((row, _rendered(subject, row, positions)))
        except PromptError as error:
            problems.append(f"{row.place}: {error}")
    kept, prompts = tuple(row for row, _ in good), tuple(prompt for _, prompt in good)
    there: tuple[Position, ...] = tuple(p for p in positions if any(prompt.spans[p] for prompt in prompts))
    return Rendered(rows=kept, positions=there, prompts=prompts, problems=tuple(problems))


def _rendered(subject: Subject, row: LabelledPrompt, positions: Sequence[Position]) -> Prompt:
    prompt = subject.local.renderer.render(row.messages, row.tools, positions)
    if prompt.unread:
        raise PromptError(prompt.unread)
    if len(prompt.ids) > subject.longest:
        raise PromptError(f"the prompt has {len(prompt.ids)} tokens, the model takes {subject.longest}")
    return prompt


class StoredStates(Mapping[Place, Array]):
    """[n, d_model] at each place, in the order of the prompts; NaN for prompts with nothing to read there."""

    def __init__(
        self, files: Sequence[Path], order: Sequence[int], positions: Sequence[Position], layers: int
    ) -> None:
        self._files, self._order, self._positions, self._layers = files, order, positions, layers

    def __getitem__(self, place: Place) -> Array:
        layer, position = place
        found: list[Array] = []
        for path in self._files:
            block = np.load(path, mmap_mode="r")
            found.append(np.array(block[self._positions.index(position), layer]))
        rows = np.concatenate(found)
        ordered = np.empty_like(rows)
        ordered[np.asarray(self._order)] = rows
        return ordered

    def __iter__(self) -> Iterator[Place]:
        return ((layer, p) for p in self._positions for layer in range(1, self._layers + 1))

    def __len__(self) -> int:
        return len(self._positions) * self._layers


def stored_states(subject: Subject, given: Rendered, folder: Path, report: Report = silent) -> StoredStates:
    """Read the states that are not in the folder yet. Raises ExtractionError if states are not finite."""
    blocks = list(bucketed([len(prompt.ids) for prompt in given.prompts], BLOCK))
    files = files_of(subject, given, folder)
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    for path, block in zip(files, blocks, strict=True):
        if not path.is_file():
            _write(path, _read(subject, given, block))
        done += len(block)
        report(STAGE, done, len(given.prompts))
    order = [i for block in blocks for i in block]
    return StoredStates(files, order, given.positions, subject.layers)


def files_of(subject: Subject, given: Rendered, folder: Path) -> list[Path]:
    """The files that hold these states, or will: their names tell the model and the prompts."""
    blocks = bucketed([len(prompt.ids) for prompt in given.prompts], BLOCK)
    prompts = [[prompt.ids, sorted(prompt.spans.items())] for prompt in given.prompts]
    text = json.dumps([asdict(subject.fingerprint), given.positions, prompts])
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    return [folder / f"{name}-{number:04}.npy" for number, _ in enumerate(blocks)]


def missing(subject: Subject, given: Rendered, folder: Path) -> float:
    """The share of the prompts whose states are not in the folder yet, by files."""
    files = files_of(subject, given, folder)
    return sum(not path.is_file() for path in files) / len(files)


def seconds_to_read(subject: Subject, given: Rendered) -> float:
    """An estimate from a few prompts of middling length, which are read and forgotten."""
    batches = list(subject.batches([len(prompt.ids) for prompt in given.prompts]))
    sample = [given.prompts[i] for i in batches[len(batches) // 2][:8]]
    start = monotonic()
    subject.states(sample, given.positions)
    return (monotonic() - start) * given.tokens / sum(len(prompt.ids) for prompt in sample)


def bytes_to_keep(subject: Subject, given: Rendered) -> int:
    """The size of the files."""
    return 4 * len(given.positions) * (subject.layers + 1) * subject.d_model * len(given.prompts)


def _write(path: Path, states: Array) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, states)
    part.replace(path)


def _read(subject: Subject, given: Rendered, block: Sequence[int]) -> Array:
    """[positions, L + 1, rows, d_model]."""
    found = subject.states([given.prompts[i] for i in block], given.positions)
    found = np.ascontiguousarray(found.transpose(1, 2, 0, 3))
    there = np.array(
        [[bool(given.prompts[i].spans[position]) for i in block] for position in given.positions]
    )
    bad = np.argwhere(~np.isfinite(found).all(axis=(1, 3)) & there)
    if len(bad):
        place = given.rows[block[bad[0][1]]].place
        raise ExtractionError(f"{place}: the model's activations are not finite; try --dtype float32")
    return found
