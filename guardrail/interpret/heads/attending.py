"""Which heads attend from the answer to words of a group, beyond neutral words and the rest of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from guardrail.extract.journal import Report, Row, silent
from guardrail.extract.subject import Subject
from guardrail.interpret.accuracy.prompts import Asker
from guardrail.interpret.forms import notes
from guardrail.interpret.heads.contexts import Context, Contexts
from guardrail.interpret.heads.results import ALPHA, Concentration, Head, HeadResult, HeadStudy
from guardrail.interpret.heads.words import NEUTRAL
from guardrail.interpret.resuming import Work, digest, packed, recipe_of, unpacked
from guardrail.statistics.intervals import Numbers, column_means
from guardrail.statistics.permutation import false_discovery, hedges_g, one_sample, paired_d, two_sample

TOP = 20
"""The strongest of this many heads count as few."""


def attending(
    asker: Asker, given: Contexts, name: str, report: Report = silent, work: Path | None = None
) -> HeadStudy:
    """All heads of a model against all groups. An interrupted run in `work` is resumed.

    Raises ModelError if its attention cannot be read, and ExtractionError if `work` was begun with other
    prompts or another model.
    """
    shares = _shares(asker.subject, given.contexts, Work(work, report))
    layers, heads = asker.subject.layers, asker.subject.activations.heads
    groups = [group for group in given.compared if group != NEUTRAL]
    tests = [_Test(shares, given, group) for group in groups]
    q = false_discovery([test.p for test in tests])
    over_q = false_discovery([test.over_p for test in tests])
    every = [Head(i // heads + 1, i % heads) for i in range(layers * heads)]
    found = [test.results(every, *adjusted) for test, *adjusted in zip(tests, q, over_q, strict=True)]
    return replace(
        unread(asker, given, name),
        results=tuple(one for results in found for one in results),
        concentration={group: _concentration(results) for group, results in zip(groups, found, strict=True)},
    )


def unread(asker: Asker, given: Contexts, name: str, *reasons: str) -> HeadStudy:
    """What was to be read, without any results: for models whose attention cannot be read."""
    return HeadStudy(
        model=name,
        form=asker.form,
        layers=asker.subject.layers,
        heads=asker.subject.activations.heads,
        words={group: tuple(given.words[i] for i in given.of(group)) for group in given.compared},
        rejected=given.rejected,
        templates=tuple(dict.fromkeys(one.template for one in given.contexts)),
        contexts=len(given.contexts),
        results=(),
        concentration={},
        notes=(*notes(asker.subject, asker.form), *reasons),
    )


class _Test:
    """One group against neutral words, for all heads at once."""

    def __init__(self, shares: Numbers, given: Contexts, group: str) -> None:
        self.group = group
        words, rest = shares[..., 0], shares[..., 1]
        self.own, self.neutral = words[given.of(group)], words[given.of(NEUTRAL)]
        self.elsewhere = rest[given.of(group)]
        self.p, self.effect = two_sample(self.own, self.neutral), hedges_g(self.own, self.neutral)
        over = self.own - self.elsewhere
        self.over_p, self.over = one_sample(over), paired_d(over)

    def results(self, heads: Sequence[Head], q: Numbers, over_q: Numbers) -> list[HeadResult]:
        """One for each head."""
        neutral, elsewhere = self.neutral.mean(axis=0), self.elsewhere.mean(axis=0)
        return [
            HeadResult(
                head=head,
                group=self.group,
                word=word,
                neutral=float(neutral[i]),
                elsewhere=float(elsewhere[i]),
                effect=float(self.effect[i]),
                p=float(self.p[i]),
                q=float(q[i]),
                over_controls=float(self.over[i]),
                over_p=float(self.over_p[i]),
                over_q=float(over_q[i]),
            )
            for i, (head, word) in enumerate(zip(heads, column_means(self.own), strict=True))
        ]


def _shares(subject: Subject, contexts: Sequence[Context], work: Work) -> Numbers:
    """[words, layers * heads, 2]: on the word, and on a token of the rest; means over contexts."""
    recipe = recipe_of(subject, prompts=digest([asdict(context) for context in contexts]))

    def make(numbers: Sequence[int]) -> list[Row]:
        return [{"shares": packed(_read(subject, contexts[i]))} for i in numbers]

    rows = work.rows("attention", "attention", recipe, len(contexts), make)
    every = subject.layers * subject.activations.heads
    total = sum(unpacked(row["shares"], -1, every, 2) for row in rows)
    return np.asarray(total) / len(contexts)


def _read(subject: Subject, context: Context) -> Numbers:
    found: list[Numbers] = []
    for batch in subject.batches([len(ids) for ids in context.rows]):
        ids, mask = subject.local.padded([context.rows[i] for i in batch], left=True)
        weighted = subject.activations.attention(ids, mask).weighted.flatten(1, 2)
        rest = torch.ones(weighted.shape[-1], dtype=torch.bool, device=weighted.device)
        # the first token takes what heads have no use for, and the last one attends to itself
        rest[[0, -1]] = False
        rest[context.start : context.end] = False
        both = (weighted[..., context.start : context.end].sum(-1), weighted[..., rest].mean(-1))
        found.append(torch.stack(both, -1).double().cpu().numpy())
    return np.concatenate(found)


def _concentration(results: Sequence[HeadResult]) -> Concentration:
    excess = np.sort([max(one.word.value - one.neutral, 0.0) for one in results])[::-1]
    few = max(1, round(len(results) / TOP))
    return Concentration(
        heads=len(results),
        found=sum(one.found for one in results),
        fewer=sum(one.q < ALPHA and one.effect < 0 for one in results),
        top=float(excess[:few].sum() / excess.sum()) if excess.sum() else 0.0,
    )
