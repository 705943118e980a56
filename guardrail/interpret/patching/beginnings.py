"""Where the replies to two prompts part: the token at which an open answer is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from guardrail.extract.subject import Subject
from guardrail.interpret.patching.pairs import LONGEST, Pair


def parted(subject: Subject, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs; those without answers are followed by what both greedy replies begin with."""
    chosen = [pair for pair in pairs if not pair.answers]
    begun = shared_beginnings(subject, [(pair.source, pair.target) for pair in chosen])
    shared = {id(pair): beginning for pair, beginning in zip(chosen, begun, strict=True)}
    return [_begun(pair, shared.get(id(pair), ())) for pair in pairs]


def shared_beginnings(
    subject: Subject, prompts: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> list[tuple[int, ...]]:
    """The tokens that the greedy replies to two prompts begin with alike, for each two prompts.

    Replies that are the same to their end have all tokens in common but the end.
    """
    rows = [ids for two in prompts for ids in two]
    replies = subject.continued(rows, max_new_tokens=LONGEST) if rows else []
    said = [reply.ids[:-1] if reply.ended else reply.ids for reply in replies]
    return [_shared(*said[i : i + 2]) for i in range(0, len(said), 2)]


def _shared(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    return tuple(a for a, _ in takewhile(lambda two: two[0] == two[1], zip(first, second, strict=False)))


def _begun(pair: Pair, beginning: tuple[int, ...]) -> Pair:
    return replace(pair, source=(*pair.source, *beginning), target=(*pair.target, *beginning))
