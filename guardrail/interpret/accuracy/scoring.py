"""How likely each option is, in the model as it is or with its activations changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch

from guardrail.engines.transformers.activations import Change, Site
from guardrail.evaluation.losses import reply_losses
from guardrail.extract.journal import Report, silent
from guardrail.interpret.accuracy.items import Item
from guardrail.interpret.accuracy.personas import Persona
from guardrail.interpret.accuracy.prompts import Asked, Asker
from guardrail.statistics.intervals import Numbers

Changes = Mapping[Site, Change]
AS_IT_IS: Changes = MappingProxyType({})
PART = 256
"""Prompts between two reports."""


def option_probabilities(
    asker: Asker,
    pairs: Sequence[tuple[Persona, Item]],
    changes: Changes = AS_IT_IS,
    stage: str = "prompts",
    report: Report = silent,
) -> Numbers:
    """[n, options]: the probability of each option among those of its item; 0 where an item has fewer.

    Raises ConfigError as `Asker.ask`.
    """
    asked = [asker.ask(persona, item) for persona, item in pairs]
    score = _letters if asker.scoring == "letters" else _texts
    found = np.zeros((len(asked), max((len(one.options) for one in asked), default=0)))
    for start in range(0, len(asked), PART):
        part = score(asker, asked[start : start + PART], changes, pairs[start : start + PART])
        for row, values in enumerate(part, start):
            found[row, : len(values)] = _softmax(values)
        report(stage, min(start + PART, len(asked)), len(asked))
    return found


def _letters(
    asker: Asker, asked: Sequence[Asked], changes: Changes, _pairs: Sequence[tuple[Persona, Item]]
) -> list[Numbers]:
    """Logits of the first token that tells letters apart."""
    subject = asker.subject
    found: dict[int, Numbers] = {}
    for batch in subject.batches([len(one.prompt) for one in asked]):
        ids, mask = subject.local.padded([asked[i].prompt for i in batch], left=True)
        logits = subject.activations.run(ids, mask, changes, last=True)
        for row, i in zip(logits, batch, strict=True):
            tokens = torch.tensor([option[0] for option in asked[i].options], device=row.device)
            found[i] = row[tokens].double().cpu().numpy()
    return [found[i] for i in range(len(asked))]


def _texts(
    asker: Asker, asked: Sequence[Asked], changes: Changes, pairs: Sequence[tuple[Persona, Item]]
) -> list[Numbers]:
    """Log-probabilities of the options' texts, by their bytes, so that long options are not worse."""
    told = [(one.prompt, option) for one in asked for option in one.options]
    losses = iter(reply_losses(asker.subject, told, changes))
    return [
        np.array(
            [
                -next(losses) * len(ids) / len(text.encode())
                for ids, text in zip(one.options, item.options, strict=True)
            ]
        )
        for one, (_, item) in zip(asked, pairs, strict=True)
    ]


def _softmax(values: Numbers) -> Numbers:
    powers = np.exp(values - values.max())
    return powers / powers.sum()
