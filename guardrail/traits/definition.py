"""The data type of a trait definition, independent of any file format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    question is in both. `rubric` contains `{question}` and `{answer}`. A blank instruction means that there
    is no system prompt.
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
    evaluation_instructions: tuple[InstructionPair, ...] = ()
    evaluation_rubric: str = ""
    """What takes the place of `instructions` and `rubric` with the evaluation questions, if given."""
    provoking: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the positive side asks in place of a question, for traits that requests bring out, not roles."""
    roles: tuple[str, ...] = ()
    """The role that the negative side of each instruction pair plays, for an axis from roles to an assistant.

    The rubric then contains `{role}`.
    """

    def pairs(self, *, held_out: bool) -> tuple[InstructionPair, ...]:
        """The instructions that go with the extraction questions, or with the evaluation questions."""
        return (
            self.evaluation_instructions if held_out and self.evaluation_instructions else self.instructions
        )

    def asked(self, question: str, side: str) -> str:
        """What a side asks in place of a question."""
        return self.provoking.get(question, question) if side == "positive" else question

    def rubric_for(self, role: str = "", *, held_out: bool = False) -> str:
        """The rubric with the role filled in."""
        chosen = self.evaluation_rubric if held_out and self.evaluation_rubric else self.rubric
        return chosen.replace("{role}", role) if self.roles else chosen

    def with_questions(self, count: int | None) -> Self:
        """The definition with only the first questions of each set; all of them for None."""
        return replace(self, extraction=self.extraction[:count], evaluation=self.evaluation[:count])
