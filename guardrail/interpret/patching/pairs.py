"""Pairs of prompts that differ in the identity slot alone, as one model can be asked them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from guardrail.engines import Span
from guardrail.extract.subject import Subject
from guardrail.files.json_lines import parse_lines
from guardrail.interpret.forms import Form, Ids, chat_ids, text_ids

SLOT = "{identity}"
LENGTHS = "the two prompts do not have the same number of tokens"
SAME = "the two prompts are the same"
LONG = "the prompts are longer than the model takes"
ANSWER = "an answer is not a single token"


class PairLine(BaseModel):
    """One line of a file of pairs. `{identity}` stands once, in `system` or `prompt`.

    source, target: the identities; values of the source's run are put into the target's run. answers: what
    the model chooses among; none: whatever it says where its two replies part. begin: how replies begin.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: str
    source: str
    target: str
    system: str = ""
    answers: tuple[str, ...] = ()
    begin: str = ""
    name: str = ""

    def texts(self, identity: str) -> tuple[str, str]:
        """(system, prompt) with an identity in the slot."""
        return self.system.replace(SLOT, identity), self.prompt.replace(SLOT, identity)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two prompts of equal length; `span` is from the first to the last token that differs.

    answers: token ids of the answers, empty if every token may be one.
    """

    name: str
    source: tuple[int, ...]
    target: tuple[int, ...]
    span: Span
    answers: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """How many tokens each prompt has."""
        return len(self.source)


@dataclass(frozen=True, slots=True)
class Reject:
    """A pair that is left out, and why."""

    name: str
    reason: str


def load_pairs(path: Path) -> list[PairLine]:
    """The pairs in a JSON Lines file. Raises ConfigError with every bad line."""
    rows = parse_lines(path, PairLine, _check)
    return [line.model_copy(update={"name": line.name or place}) for place, line in rows]


def _check(line: PairLine) -> None:
    if (line.system + line.prompt).count(SLOT) != 1:
        raise ValueError(f"`{SLOT}` must stand exactly once in `system` and `prompt` together")
    if line.source == line.target:
        raise ValueError("`source` and `target` are the same identity")
    if len(line.answers) == 1 or len(set(line.answers)) < len(line.answers):
        raise ValueError("`answers` must be none, or two or more different ones")


def aligned(subject: Subject, lines: Sequence[PairLine], form: Form) -> tuple[list[Pair], list[Reject]]:
    """The pairs whose prompts have equal length and whose answers are tokens, and the others."""
    pairs: list[Pair] = []
    rejects: list[Reject] = []
    for line in lines:
        found = _pair(subject, line, form)
        if isinstance(found, Pair):
            pairs.append(found)
        else:
            rejects.append(Reject(line.name, found))
    return pairs, rejects


def counted(rejects: Sequence[Reject]) -> dict[str, int]:
    """How many pairs were left out for each reason, the most frequent first."""
    return dict(Counter(reject.reason for reject in rejects).most_common())


def _pair(subject: Subject, line: PairLine, form: Form) -> Pair | str:
    source, target = (_ids(subject, line, identity, form) for identity in (line.source, line.target))
    if len(source) != len(target):
        return LENGTHS
    if len(source) > subject.longest:
        return LONG
    differing = [i for i, (a, b) in enumerate(zip(source, target, strict=True)) if a != b]
    if not differing:
        return SAME
    answers = [answer_token(subject, source, answer) for answer in line.answers]
    known = tuple(token for token in answers if token is not None)
    if len(set(known)) < len(answers):
        return ANSWER
    return Pair(line.name, source, target, (differing[0], differing[-1] + 1), known)


def _ids(subject: Subject, line: PairLine, identity: str, form: Form) -> Ids:
    system, prompt = line.texts(identity)
    if form == "text":
        return text_ids(subject, "\n".join(part for part in (system, f"{prompt}{line.begin}") if part))
    ids = chat_ids(subject, system, prompt)
    return (*ids, *subject.local.renderer.encode(line.begin)) if line.begin else ids


def answer_token(subject: Subject, ids: Sequence[int], answer: str) -> int | None:
    """The single token of an answer that follows `ids`; None if it takes more.

    After white space and special tokens a reply begins with the word itself, elsewhere with a space.
    """
    last = subject.tokenizer.decode(ids[-1:])
    fresh = ids[-1] in subject.tokenizer.all_special_ids or last[-1:].isspace()
    found = subject.local.renderer.encode(answer if fresh else f" {answer}")
    return found[0] if len(found) == 1 else None
