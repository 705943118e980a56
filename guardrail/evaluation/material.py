"""The data of an evaluation: prompts with labels, conditions and later expression. No files, no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from guardrail.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One prompt and what is known about it.

    labels: trait to True (the prompt shows it, or a policy on it should fire) or False; a missing trait was
    not judged. expression: trait to the scores, 0 to 100, of the replies that followed. propensity: known
    from the generator. group: cross-validation keeps examples of one group on one side. place: the line of
    the file, for messages.
    """

    messages: tuple[Message, ...]
    labels: Mapping[str, bool] = field(default_factory=dict[str, bool])
    expression: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    propensity: Mapping[str, float] = field(default_factory=dict[str, float])
    condition: str = ""
    slices: Mapping[str, str] = field(default_factory=dict[str, str])
    group: str = ""
    place: str = ""

    @property
    def text(self) -> str:
        """All turns as one text, for a text classifier."""
        return "\n".join(message.content for message in self.messages)

    @property
    def positive(self) -> tuple[str, ...]:
        """The traits with a positive label."""
        return tuple(trait for trait, label in self.labels.items() if label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The sets of one evaluation.

    labelled: for detection. hard_benign: negatives that only slices report (a user's own hard benign prompts
    count as labelled). training: for the text baseline, if it is not cross-validated on `labelled`.
    monitored: for each trait, prompts with its expression. neutral: text that gives null directions their
    covariance. below: traits to detect at their low end.
    """

    traits: tuple[str, ...]
    labelled: tuple[Example, ...]
    monitored: Mapping[str, tuple[Example, ...]]
    neutral: tuple[Example, ...]
    hard_benign: tuple[Example, ...] = ()
    training: tuple[Example, ...] = ()
    below: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def examples(self) -> tuple[Example, ...]:
        """Every example once, in a fixed order."""
        monitored = (example for part in self.monitored.values() for example in part)
        return unique((*self.labelled, *self.hard_benign, *monitored, *self.neutral))


def unique(examples: Iterable[Example]) -> tuple[Example, ...]:
    """The examples without repetitions of the same object."""
    return tuple({id(example): example for example in examples}.values())


def labelled_as(examples: Sequence[Example], trait: str, label: bool) -> list[Example]:
    """The examples with this label for the trait."""
    return [example for example in examples if example.labels.get(trait) is label]


def of_other_traits(examples: Sequence[Example], trait: str) -> list[Example]:
    """The examples labelled with another trait, but not with this one."""
    return [e for e in examples if not e.labels.get(trait, False) and e.positive]


def benign(examples: Sequence[Example]) -> list[Example]:
    """The labelled examples without a positive label."""
    return [example for example in examples if example.labels and not example.positive]
