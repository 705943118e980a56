"""A labelled prompt, and what a set of them has to be before anything can be fitted on it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from guardrail.errors import ConfigError
from guardrail.files.json_lines import refuse
from guardrail.types import Message

Split: TypeAlias = Literal["train", "validation"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
MINIMUM = 20
"""The fewest prompts of each class that a detector is fitted on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPrompt:
    """A conversation up to where a reply begins, and whether it shows each trait.

    `labels` leaves out traits that nobody has judged. `source` is where the prompt comes from, `category` its
    kind within the source. Prompts of one `group` are never on both sides of a split. `split`: the part that
    the user put it in. Error messages refer to it by `place`.
    """

    place: str
    messages: tuple[Message, ...]
    labels: Mapping[str, bool]
    tools: tuple[Mapping[str, Any], ...] = ()
    source: str = ""
    category: str = ""
    group: str = ""
    split: Split | None = None

    @property
    def key(self) -> str:
        """The normalised conversation: case and white space do not count."""
        turns = [
            [m.role, _plain(m.content), [call.as_dict() for call in m.tool_calls]] for m in self.messages
        ]
        return json.dumps([turns, list(self.tools)], sort_keys=True)

    @property
    def text(self) -> str:
        """All turns but system messages, which many prompts share."""
        return text_of(self.messages)


def text_of(messages: Sequence[Message]) -> str:
    """The normalised text of all turns but system messages."""
    return _plain(" ".join(m.content for m in messages if m.role != "system"))


def digest(text: str) -> str:
    """A short name for a text, by which a calibration knows prompts that a probe was fitted on."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def distinct(rows: Iterable[LabelledPrompt]) -> list[LabelledPrompt]:
    """The first of each prompt that is repeated.

    Raises ConfigError with every prompt that has two labels, or stands in two parts.
    """
    first: dict[str, LabelledPrompt] = {}
    problems: list[str] = []
    for row in rows:
        earlier = first.setdefault(row.key, row)
        if (reason := _conflict(earlier, row)) is not None:
            problems.append(f"{row.place}: {reason}: the prompt repeats {earlier.place}")
    refuse(problems)
    return list(first.values())


def _conflict(one: LabelledPrompt, other: LabelledPrompt) -> str | None:
    if one.split != other.split:
        return f"the same prompt in the parts `{one.split}` and `{other.split}`"
    if one.labels != other.labels:
        return f"labelled differently ({_told(other.labels)}, there {_told(one.labels)})"
    return None


def _told(labels: Mapping[str, bool]) -> str:
    return ", ".join(f"{name} {int(value)}" for name, value in sorted(labels.items()))


def traits_of(rows: Sequence[LabelledPrompt]) -> list[str]:
    """All traits that any prompt is labelled for, in the order of the file."""
    return list(dict.fromkeys(trait for row in rows for trait in row.labels))


def check_names(traits: Sequence[str]) -> None:
    """Raises ConfigError for labels that no policy could name."""
    refuse(
        [
            f"the label `{trait}` cannot be the name of a trait: use letters, digits, `_`, `.` and `-`"
            for trait in traits
            if not NAME.fullmatch(trait)
        ]
    )


def check_classes(rows: Sequence[LabelledPrompt], traits: Sequence[str]) -> None:
    """Raises ConfigError for traits with one class only, or with too few prompts of one."""
    refuse([problem for trait in traits if (problem := _shortage(rows, trait))])


def _shortage(rows: Sequence[LabelledPrompt], trait: str) -> str | None:
    labels = [row.labels[trait] for row in rows if trait in row.labels]
    shown = sum(labels)
    if not labels:
        return f"{trait}: no prompt is labelled for it"
    if shown in (0, len(labels)):
        return (
            f"{trait}: all {len(labels)} prompts are labelled {int(labels[0])}; a detector is fitted on "
            "prompts labelled 1 and prompts labelled 0"
        )
    if min(shown, len(labels) - shown) < MINIMUM:
        return (
            f"{trait}: {shown} prompts labelled 1 and {len(labels) - shown} labelled 0 are too few; it takes "
            f"{MINIMUM} of each, and hundreds for a rate of 1 %"
        )
    return None


def sampled(rows: Sequence[LabelledPrompt], most: int | None, seed: int) -> list[LabelledPrompt]:
    """At most `most` prompts: as many of each source and label as their shares, drawn at random."""
    import numpy as np

    if most is None or len(rows) <= most:
        return list(rows)
    if most < 2 * MINIMUM:
        raise ConfigError(f"--max-prompts {most}: a detector takes {2 * MINIMUM} prompts or more")
    rng = np.random.default_rng(seed)
    keys = [(row.split or "", row.source, sorted(row.labels.items())) for row in rows]
    drawn = rng.random(len(rows))
    places = _evenly(keys, drawn)
    return [rows[i] for i in sorted(sorted(range(len(rows)), key=lambda i: (places[i], drawn[i]))[:most])]


def _evenly(keys: Sequence[object], drawn: Any) -> list[float]:
    """Each row's rank within its stratum, as a share: taking the lowest takes an even part of each."""
    strata: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        strata.setdefault(repr(key), []).append(i)
    found = [0.0] * len(keys)
    for members in strata.values():
        for rank, i in enumerate(sorted(members, key=lambda i: drawn[i])):
            found[i] = (rank + 0.5) / len(members)
    return found
