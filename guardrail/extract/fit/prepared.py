"""Labelled prompts that can be fitted on: distinct, of both classes, with near duplicates. Needs no model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from guardrail.errors import ConfigError
from guardrail.extract.fit.duplicates import grouped, refuse_leaks
from guardrail.extract.fit.folds import Rows
from guardrail.extract.fit.rows import LabelledPrompt, check_classes, check_names, digest, distinct, traits_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Labelled prompts that can be fitted on. groups: [n], the near duplicates among them."""

    rows: tuple[LabelledPrompt, ...]
    traits: tuple[str, ...]
    groups: Rows = field(repr=False)
    repeated: int = 0

    @property
    def sha256(self) -> str:
        """Identifies the prompts and their labels, independent of their order."""
        lines = sorted(f"{row.key} {sorted(row.labels.items())}" for row in self.rows)
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def digests(self) -> tuple[str, ...]:
        """The digest of each prompt's text."""
        return tuple(sorted({digest(row.text) for row in self.rows}))


def prepare(rows: Sequence[LabelledPrompt], traits: Sequence[str] = ()) -> Prepared:
    """Check what needs no model. Raises ConfigError for prompts that nothing can be fitted on."""
    kept = distinct(rows)
    known = traits_of(kept)
    if unknown := [trait for trait in traits if trait not in known]:
        raise ConfigError(f"no prompt is labelled for `{unknown[0]}`; labels: {', '.join(known)}")
    wanted = list(traits) or known
    check_names(wanted)
    for part in dict.fromkeys(row.split for row in kept):
        check_classes([row for row in kept if row.split == part], wanted)
    if any(row.split for row in kept):
        refuse_leaks(kept)
    return Prepared(
        rows=tuple(kept), traits=tuple(wanted), groups=grouped(kept), repeated=len(rows) - len(kept)
    )
