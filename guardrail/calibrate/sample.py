"""Splits distinct benign prompts into disjoint calibration and held-out parts. Needs no model."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from guardrail.errors import CalibrationError, PromptError
from guardrail.pipeline.request import request
from guardrail.types import Message, Messages

SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class BenignPrompt:
    """A prompt and its token ids up to where the reply begins. Error messages refer to it by `name`."""

    name: str
    messages: tuple[Message, ...]
    ids: tuple[int, ...] = field(repr=False)

    @property
    def key(self) -> str:
        """Identifies the prompt by its tokens, because the model sees nothing else."""
        return hashlib.sha256(json.dumps(self.ids).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The prompts that the model can read, and the problems of the others."""

    prompts: tuple[BenignPrompt, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Two disjoint parts of the distinct prompts. `duplicates` were left out before the split.

    `skipped`: lines that could not be read. `slices`: other samples by name, which share no prompt with this.
    """

    calibration: tuple[BenignPrompt, ...]
    held_out: tuple[BenignPrompt, ...]
    duplicates: int
    seed: int
    source: str = ""
    skipped: int = 0
    slices: Mapping[str, Sample] = field(default_factory=dict[str, "Sample"])

    @property
    def prompts(self) -> tuple[BenignPrompt, ...]:
        """All of them."""
        return (*self.calibration, *self.held_out)

    def beside(self, slices: Mapping[str, Sample]) -> Sample:
        """The same sample with slices. Raises CalibrationError with every prompt of theirs that it holds."""
        known = {prompt.key: prompt.name for prompt in self.prompts}
        shared = [
            f"slice `{name}`: {prompt.name} is the same prompt as {known[prompt.key]}"
            for name, one in slices.items()
            for prompt in sorted(one.prompts, key=lambda prompt: prompt.name)
            if prompt.key in known
        ]
        if shared:
            raise CalibrationError("\n".join([*some(shared), "a slice holds prompts that the sample lacks"]))
        return replace(self, slices=slices)

    @property
    def sha256(self) -> str:
        """Identifies the distinct prompts, independent of their order and split."""
        keys = sorted(prompt.key for prompt in self.prompts)
        return hashlib.sha256("".join(keys).encode()).hexdigest()


def read(
    named: Iterable[tuple[str, Messages | str]],
    render: Callable[[Sequence[Message]], Sequence[int]],
    longest: int,
) -> Read:
    """Check and render prompts; a plain string is one user message. Never raises for a bad prompt."""
    prompts: list[BenignPrompt] = []
    bad: list[str] = []
    for name, content in named:
        try:
            prompts.append(_prompt(name, content, render, longest))
        except PromptError as error:
            bad.append(f"{name}: {error}")
    return Read(prompts=tuple(prompts), problems=tuple(bad))


def _prompt(
    name: str,
    content: Messages | str,
    render: Callable[[Sequence[Message]], Sequence[int]],
    longest: int,
) -> BenignPrompt:
    messages = _readable(content)
    ids = tuple(render(messages))
    if len(ids) > longest:
        raise PromptError(f"the prompt has {len(ids)} tokens, the model takes {longest}")
    return BenignPrompt(name, messages, ids)


def _readable(content: Messages | str) -> tuple[Message, ...]:
    item = request("check", content)
    if item.unreadable:
        raise PromptError(item.unreadable)
    return item.messages


def problems(named: Iterable[tuple[str, Messages | str]]) -> list[str]:
    """What is wrong with prompts whatever the model, as in `Read`."""
    found: list[str] = []
    for name, content in named:
        try:
            _readable(content)
        except PromptError as error:
            found.append(f"{name}: {error}")
    return found


def split(prompts: Sequence[BenignPrompt], held_out: float = 0.2, seed: int = 0) -> Sample:
    """Hold out a random part of the distinct prompts. Raises CalibrationError if too few are left.

    The draw depends on the prompts' content and the seed, not on the order of the file.
    """
    distinct = {prompt.key: prompt for prompt in reversed(prompts)}
    ordered = [distinct[key] for key in sorted(distinct)]
    order = np.random.default_rng(seed).permutation(len(ordered))
    kept = parts(len(ordered), held_out)
    return Sample(
        calibration=tuple(ordered[i] for i in order[:kept]),
        held_out=tuple(ordered[i] for i in order[kept:]),
        duplicates=len(prompts) - len(ordered),
        seed=seed,
    )


def parts(prompts: int, held_out: float) -> int:
    """How many of so many distinct prompts are not held out. Raises CalibrationError if they are too few."""
    if not 0 <= held_out < 1:
        raise CalibrationError(f"the held-out share must be at least 0 and below 1, not {held_out}")
    kept = prompts - math.floor(held_out * prompts)
    if kept < 2:
        few = "1 distinct prompt is" if prompts == 1 else f"{prompts} distinct prompts are"
        raise CalibrationError(f"{few} too few; a rate of 1 % takes 99, besides those that are held out")
    return kept


def some(problems: Sequence[str]) -> list[str]:
    """The first problems, and how many more there are."""
    more = len(problems) - SHOWN_PROBLEMS
    return [*problems[:SHOWN_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
