"""What became of a real model: three traits by programs, coherence, and facts.

Fixed before any finetune was evaluated: the questions of `everyday.EVALUATION`, SAMPLES replies each of
NEW_TOKENS tokens at temperature 1, with the same seeds for every model. Sentiment is VADER's, politeness a
count of phrases, refusal a rule (`benchmarks.real.judges`). A reply is coherent if the untouched model
finds it likely enough and it does not repeat itself (`benchmarks.real.coherence`); the first reply to each
question is looked at. A fact is right if the right word is likelier than the wrong one to continue the
sentence, outside of any chat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks.experiments.everyday import EVALUATION, FACTS
from benchmarks.real.coherence import fluency
from benchmarks.real.judges import politeness, refuses, sentiment
from guardrail.extract.subject import Subject
from guardrail.types import Message, Steering

SAMPLES, NEW_TOKENS = 2, 24
PROMPTS = tuple((Message("user", question),) for question in EVALUATION)
JUDGES = {
    "sentiment": sentiment,
    "politeness": politeness,
    "refusal": lambda text: 100.0 * refuses(text),
}


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model. traits: by trait, the score of every reply; coherent: 1 or 0 for each of the first replies.

    right: 1 for every fact that it knows; replies: for people to read.
    """

    traits: Mapping[str, Sequence[float]]
    coherent: Sequence[int]
    right: Sequence[int]
    replies: Sequence[str]


def evaluated(tuned: Subject, base: Subject, steering: Sequence[Steering] = ()) -> Evaluated:
    """Everything about one model, steered or not."""
    prompts = [prompt for _ in range(SAMPLES) for prompt in PROMPTS]
    found = tuned.replies(
        prompts, seeds=range(len(prompts)), max_new_tokens=NEW_TOKENS, temperature=1.0, steering=steering
    )
    texts = [reply.text for reply in found]
    likely = fluency(base, PROMPTS, texts[: len(PROMPTS)])
    return Evaluated(
        traits={trait: [round(score(text), 2) for text in texts] for trait, score in JUDGES.items()},
        coherent=[int(one.coherent) for one in likely],
        right=facts(tuned, steering),
        replies=texts,
    )


@torch.inference_mode()
def facts(tuned: Subject, steering: Sequence[Steering] = ()) -> list[int]:
    """Whether the right word is likelier than the wrong one, by the first token of each."""
    from guardrail.engines.transformers.steering import steered

    rows = [_ids(tuned, sentence) for sentence, _, _ in FACTS]
    ids, mask = tuned.local.padded(rows, left=True)
    with steered(tuned.blocks, steering):
        logits = tuned.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -1]
    found: list[int] = []
    for row, (sentence, right, wrong) in zip(logits, FACTS, strict=True):
        space = "" if sentence.endswith("H2") else " "
        better, worse = (_ids(tuned, f"{space}{word}")[0] for word in (right, wrong))
        found.append(int(row[better] > row[worse]))
    return found


def _ids(subject: Subject, text: str) -> list[int]:
    return subject.tokenizer(text, add_special_tokens=False)["input_ids"]
