"""Turns a user's labelled prompts into Material."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guardrail.errors import ConfigError
from guardrail.evaluation import reading
from guardrail.evaluation.material import Example, Material, benign


def from_file(
    data: Path,
    traits: Sequence[str],
    *,
    seen: Sequence[Path] = (),
    neutral: Path | None = None,
    below: frozenset[str] = frozenset(),
) -> Material:
    """The labelled prompts of a file, for the traits in it. Raises ConfigError like `read_labelled`.

    seen: files of prompts that were used before; using one again is a leak. neutral: text for the null
    directions; by default the prompts labelled with no trait.
    """
    found = reading.read_labelled(data, traits)
    examples = found.test
    for path in seen:
        reading.refuse_seen(examples, path)
    named = [t for t in traits if any(t in e.labels or t in e.expression for e in examples)]
    if not named:
        raise ConfigError(f"{data}: no prompt is labelled with a trait")
    monitored = {t: tuple(e for e in examples if t in e.expression) for t in named}
    return Material(
        traits=tuple(named),
        labelled=tuple(e for e in examples if e.labels),
        monitored={trait: part for trait, part in monitored.items() if part},
        neutral=_neutral(neutral) if neutral else tuple(benign(examples)),
        below=below & frozenset(named),
        training=tuple(found.train),
        notes=(f"{found.unused} prompts of the split `validation` were not used",) if found.unused else (),
    )


def _neutral(path: Path) -> tuple[Example, ...]:
    return tuple(
        Example(messages=messages, place=place) for place, messages in reading.read_prompts(path).values()
    )
