"""What one configuration says about prompts: scores and decisions, without any text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from guardrail.engines.configurations import configuration
from guardrail.errors import ConfigError, PromptError
from guardrail.files import json_text
from guardrail.files.records import prompt_sha256, utc_now
from guardrail.files.whole import write_whole
from guardrail.pipeline.chat import BATCH
from guardrail.pipeline.request import request
from guardrail.policy.plan import Plan
from guardrail.policy.rules import Rule
from guardrail.types import Check, Configuration, Decision, Fingerprint, Messages, Status

if TYPE_CHECKING:
    from guardrail.guard import Guard

FORMAT, VERSION = "guardrail-recording", 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt to compare on. Error messages refer to it by `name`; `tags` are for `when` in policies.

    `slice`: the slice that a benign prompt is of; empty for one of the benign sample.
    """

    name: str
    messages: Messages | str
    benign: bool
    tags: frozenset[str] = frozenset()
    slice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What was said about one prompt. `sha256` is of its messages, `action` as if shadows were enforced.

    `scores` are in the order of the recording's `columns`; None for a policy that did not apply.
    """

    sha256: str
    benign: bool
    status: Status
    action: str
    scores: tuple[float | None, ...]
    slice: str = ""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The scores and decisions of one configuration. `columns` are (trait, layer)."""

    configuration: Configuration
    fingerprint: Fingerprint
    vectors_sha256: str
    calibration_sha256: str
    created: str
    columns: tuple[tuple[str, int], ...]
    said: tuple[Said, ...] = field(repr=False)

    @property
    def keys(self) -> tuple[str, ...]:
        """What the prompts are matched by."""
        return tuple(one.sha256 for one in self.said)

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """[prompts, columns]; NaN for a policy that did not apply."""
        rows = [[np.nan if value is None else value for value in one.scores] for one in self.said]
        return np.array(rows, np.float64).reshape(len(self.said), len(self.columns))

    @cached_property
    def benign(self) -> NDArray[np.bool_]:
        """[prompts]."""
        return np.array([one.benign for one in self.said], bool)

    @cached_property
    def slices(self) -> Mapping[str, NDArray[np.bool_]]:
        """[prompts] by name: the benign prompts of each slice; the benign sample has the empty name."""
        names = np.array([one.slice for one in self.said], str)
        return {
            name: self.benign & (names == name) for name in dict.fromkeys(["", *names[self.benign].tolist()])
        }

    @cached_property
    def evaluated(self) -> NDArray[np.bool_]:
        """[prompts]."""
        return np.array([one.status == "evaluated" for one in self.said], bool)

    @property
    def actions(self) -> NDArray[np.str_]:
        """[prompts]."""
        return np.array([one.action for one in self.said], str)

    def matched(self, reference: Self) -> Self:
        """What it says about the reference's prompts, in their order. Raises ConfigError for a missing one.

        What the prompts are (benign, of which slice) is as the reference has it.
        """
        known, asked = {one.sha256: one for one in self.said}, reference.said
        if missing := sum(one.sha256 not in known for one in asked):
            raise ConfigError(
                f"{missing} of the {len(asked)} prompts of the reference were not recorded under the "
                "candidate; record both with the same files"
            )
        said = (replace(known[one.sha256], benign=one.benign, slice=one.slice) for one in asked)
        return replace(self, said=tuple(said))

    def save(self, path: Path) -> None:
        """Write versioned JSON. Raises ConfigError if it cannot be written."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        try:
            write_whole(path, f"{json.dumps(content)}\n".encode())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file written by `save`. Raises ConfigError for anything else."""
        try:
            content = json_text.read(path)
            if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
                raise ValueError("not a recording of `guardrail certify --record`")
            if (version := content.pop("version", None)) != VERSION:
                raise ValueError(f"version {version!r} is not supported; supported: {VERSION}")
            return json_text.validated(cls, content)._whole()
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error

    def _whole(self) -> Self:
        if any(len(one.scores) != len(self.columns) for one in self.said):
            raise ValueError("a row does not have one score for every column")
        if not self.said:
            raise ValueError("holds no prompts")
        return self


def compared(plan: Plan) -> tuple[Rule, ...]:
    """The policies that are compared: those that are on, and decide by what is read of prompts alone."""
    return tuple(
        rule
        for rule in plan.rules
        if rule.mode != "off" and all(c.layer is not None and c.drift is None for c in rule.conditions)
    )


def columns(plan: Plan) -> tuple[tuple[str, int], ...]:
    """The (trait, layer) that compared policies read."""
    pairs = [(c.trait, c.layer or 0) for rule in compared(plan) for c in rule.conditions]
    return tuple(dict.fromkeys(pairs))


def record(guard: Guard, prompts: Sequence[Prompt], advance: Callable[[int], object]) -> Recording:
    """Let a guard decide on prompts. `advance` is told how many it has decided on.

    Raises ConfigError for a prompt that cannot be read, without a calibration, and if no policy reads any.
    """
    active = guard.active
    if active.calibration is None:
        raise ConfigError("the policies have no calibration, so there is nothing to certify")
    if not (read := columns(active.plan)):
        raise ConfigError("no policy reads what the model makes of prompts, so there is nothing to certify")
    found: dict[str, Said] = {}
    for batch in _batches(prompts):
        for prompt, check in zip(batch, _checked(guard, batch), strict=True):
            one = _said(prompt, check.decision, read)
            found.setdefault(one.sha256, one)
        advance(len(batch))
    return Recording(
        configuration=configuration(guard.engine),
        fingerprint=guard.engine.fingerprint,
        vectors_sha256=active.vectors.sha256,
        calibration_sha256=active.calibration.sha256,
        created=utc_now(),
        columns=read,
        said=tuple(found.values()),
    )


def _batches(prompts: Sequence[Prompt]) -> Iterator[list[Prompt]]:
    """In the order given; prompts with the same tags share a batch."""
    for _, group in groupby(prompts, key=lambda prompt: prompt.tags):
        same = list(group)
        yield from (same[start : start + BATCH] for start in range(0, len(same), BATCH))


def _checked(guard: Guard, batch: Sequence[Prompt]) -> list[Check]:
    try:
        return guard.check_many([prompt.messages for prompt in batch], tags=batch[0].tags)
    except PromptError as error:
        if len(batch) == 1:
            raise ConfigError(f"{batch[0].name}: {error}") from error
        # finds the prompt that it is about
        return [check for prompt in batch for check in _checked(guard, [prompt])]


def _said(prompt: Prompt, decision: Decision, read: Sequence[tuple[str, int]]) -> Said:
    found = {(score.trait, score.layer): score.score for score in decision.scores}
    return Said(
        sha256=prompt_sha256(request("check", prompt.messages).messages),
        benign=prompt.benign,
        slice=prompt.slice,
        status=decision.status,
        action=decision.would_action,
        scores=tuple(found.get(column) for column in read),
    )
