"""Pairs of prompts that differ in the identity slot alone, as one model can be asked them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from guardrail.engines import Span
from guardrail.extract.subject import Subject
from guardrail.files.json_lines import parse_lines
from guardrail.interpret.forms import Form, Ids, chat_ids, text_ids

SLOT = "{identity}"
LONGEST = 24
"""How many tokens of two greedy replies are compared to see where open answers part."""
LENGTHS = "the two prompts do not have the same number of tokens"
SAME = "the two prompts are the same"
LONG = "the prompts are longer than the model takes"
ANSWER = "an answer is not a single token"
TWICE = "two answers are the same token"


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
    """A pair that is left out, and why. detail: what is so about this one."""

    name: str
    reason: str
    detail: str = ""


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
            rejects.append(found)
    return pairs, rejects


def counted(rejects: Sequence[Reject]) -> dict[str, int]:
    """How many pairs were left out for each reason, the most frequent first."""
    return dict(Counter(reject.reason for reject in rejects).most_common())


def told(rejects: Sequence[Reject]) -> Iterator[str]:
    """A line for each reason: how many pairs, and what is so about the first of them."""
    for reason, count in counted(rejects).items():
        first = next(reject for reject in rejects if reject.reason == reason)
        yield f"{count}: {reason}" + (f" (`{first.name}`: {first.detail})" if first.detail else "")


def _pair(subject: Subject, line: PairLine, form: Form) -> Pair | Reject:
    source, target = (_ids(subject, line, identity, form) for identity in (line.source, line.target))
    if len(source) != len(target):
        return Reject(line.name, LENGTHS, f"{len(source)} and {len(target)} tokens")
    if (tokens := len(source) + (0 if line.answers else LONGEST)) > subject.longest:
        return Reject(line.name, LONG, f"{tokens} tokens; the model takes {subject.longest}")
    differing = [i for i, (a, b) in enumerate(zip(source, target, strict=True)) if a != b]
    if not differing:
        return Reject(line.name, SAME)
    answers = {answer: answer_tokens(subject, source, answer) for answer in line.answers}
    if several := [f"`{answer}` is {len(ids)} tokens" for answer, ids in answers.items() if len(ids) != 1]:
        return Reject(line.name, ANSWER, ", ".join(several))
    known = tuple(ids[0] for ids in answers.values())
    if len(set(known)) < len(known):
        return Reject(line.name, TWICE, ", ".join(answers))
    return Pair(line.name, source, target, (differing[0], differing[-1] + 1), known)


def _ids(subject: Subject, line: PairLine, identity: str, form: Form) -> Ids:
    system, prompt = line.texts(identity)
    if form == "text":
        return text_ids(subject, "\n".join(part for part in (system, f"{prompt}{line.begin}") if part))
    ids = chat_ids(subject, system, prompt)
    return (*ids, *subject.local.renderer.encode(line.begin)) if line.begin else ids


def answer_tokens(subject: Subject, ids: Sequence[int], answer: str) -> list[int]:
    """The tokens of an answer that follows `ids`.

    After white space and special tokens a reply begins with the word itself, elsewhere with a space.
    """
    last = subject.tokenizer.decode(ids[-1:])
    fresh = ids[-1] in subject.tokenizer.all_special_ids or last[-1:].isspace()
    return subject.local.renderer.encode(answer if fresh else f" {answer}")
