"""How likely each option is, in the model as it is or with its activations changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType

import numpy as np
import torch

from guardrail.engines.transformers.activations import Change, Site
from guardrail.evaluation.losses import reply_losses
from guardrail.extract.journal import Row
from guardrail.interpret.accuracy.items import Item
from guardrail.interpret.accuracy.personas import Persona
from guardrail.interpret.accuracy.prompts import Asked, Asker
from guardrail.interpret.resuming import NOWHERE, Work, digest, recipe_of
from guardrail.statistics.intervals import Numbers

Changes = Mapping[Site, Change]
AS_IT_IS: Changes = MappingProxyType({})
PART = 64
"""Prompts that are scored before they are kept and reported."""


def option_probabilities(
    asker: Asker,
    pairs: Sequence[tuple[Persona, Item]],
    changes: Changes = AS_IT_IS,
    about: Mapping[str, object] = MappingProxyType({}),
    stage: str = "prompts",
    work: Work = NOWHERE,
) -> Numbers:
    """[n, options]: the probability of each option among those of its item; 0 where an item has fewer.

    about: the changes, in a form that a resumed run can compare. Raises ConfigError as `Asker.ask`, and
    ExtractionError as `Work.rows`.
    """
    asked = [asker.ask(persona, item) for persona, item in pairs]
    score = _letters if asker.scoring == "letters" else _texts

    def make(numbers: Sequence[int]) -> list[Row]:
        part = score(asker, [asked[i] for i in numbers], changes, [pairs[i] for i in numbers])
        return [{"probabilities": _softmax(values).tolist()} for values in part]

    recipe = recipe_of(
        asker.subject, scoring=asker.scoring, prompts=digest([asdict(one) for one in asked]), **about
    )
    rows = work.rows(f"asked-{digest(dict(about))}", stage, recipe, len(asked), make, PART)
    found = np.zeros((len(asked), max((len(one.options) for one in asked), default=0)))
    for row, values in zip(found, rows, strict=True):
        row[: len(values["probabilities"])] = values["probabilities"]
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
    sizes = [
        np.array([len(ids) / len(text.encode()) for ids, text in zip(one.options, item.options, strict=True)])
        for one, (_, item) in zip(asked, pairs, strict=True)
    ]
    return [-np.array([next(losses) for _ in size]) * size for size in sizes]


def _softmax(values: Numbers) -> Numbers:
    powers = np.exp(values - values.max())
    return powers / powers.sum()
