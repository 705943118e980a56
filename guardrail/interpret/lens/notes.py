"""What a reader has to know before the numbers of a lens study."""

from __future__ import annotations

from collections.abc import Iterator

from guardrail.interpret.lens.results import LensResult

FEW = 0.1
"""Below this share of answered items, S says little about answers."""


def hardly_answered(one: LensResult) -> bool:
    """Whether a model cannot do a task, even with the persona."""
    return one.accuracy["with"].value < FEW


def notes(one: LensResult) -> Iterator[str]:
    """What a reader has to know before the numbers of a task."""
    if hardly_answered(one):
        right = one.accuracy["with"].value
        yield (
            f"{one.model} answers {100 * right:.1f} % of the items of {one.task} with their persona: what S "
            "says about the dataset's answers rests on these."
        )
    name = f"{one.model}, {one.task}"
    yield from (f"{one.model}: {note}." for note in one.notes)
    if not one.changed.value:
        yield f"{name}: the persona changes no answer, so there is no effect to be found."
    if one.rejected:
        yield f"{name}: {len(one.rejected)} items were left out; {next(iter(one.rejected.values()))}."
    if one.several:
        yield f"{name}: {one.several} answers are several tokens; only the first is looked at."
