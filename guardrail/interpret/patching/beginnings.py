"""Where the replies to two prompts part: the token at which an open answer is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from guardrail.extract.subject import Subject
from guardrail.interpret.patching.pairs import LONGEST, Pair


def parted(subject: Subject, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs; those without answers are followed by what both greedy replies begin with.

    Replies that are the same to their end are followed without the end, which is then the answer of both.
    """
    chosen = [pair for pair in pairs if not pair.answers]
    prompts = [ids for pair in chosen for ids in (pair.source, pair.target)]
    replies = subject.continued(prompts, max_new_tokens=LONGEST) if prompts else []
    said = [reply.ids[:-1] if reply.ended else reply.ids for reply in replies]
    shared = {id(pair): _shared(*said[2 * i : 2 * i + 2]) for i, pair in enumerate(chosen)}
    return [_begun(pair, shared.get(id(pair), ())) for pair in pairs]


def _shared(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    return tuple(a for a, _ in takewhile(lambda two: two[0] == two[1], zip(first, second, strict=False)))


def _begun(pair: Pair, beginning: tuple[int, ...]) -> Pair:
    return replace(pair, source=(*pair.source, *beginning), target=(*pair.target, *beginning))
