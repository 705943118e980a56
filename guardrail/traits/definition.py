"""The data type of a trait definition, independent of any file format."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionPair:
    """Two system prompts that differ in one thing: one asks for the trait, the other forbids it."""

    positive: str
    negative: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyPair:
    """Two replies to a question: one shows the trait, the other does not. Judges are checked with it."""

    question: str
    positive: str
    negative: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TraitDefinition:
    """Everything that extraction needs to know about a trait (arXiv 2507.21509, section 2.1, appendix A.1).

    Vectors come from the `extraction` questions, all later choices from the `evaluation` questions; no
    question is in both. `rubric` contains `{question}` and `{answer}`.
    """

    name: str
    description: str
    instructions: tuple[InstructionPair, ...]
    extraction: tuple[str, ...]
    evaluation: tuple[str, ...]
    rubric: str
    sha256: str
    """The SHA-256 of the file's bytes, or of both files if a published definition has two."""
    examples: tuple[ReplyPair, ...] = ()
    """Replies of which it is known which one shows the trait, to check judges with."""

    def with_questions(self, count: int | None) -> Self:
        """The definition with only the first questions of each set; all of them for None."""
        return replace(self, extraction=self.extraction[:count], evaluation=self.evaluation[:count])
