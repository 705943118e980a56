# pyright: basic
"""The endless training stream: fresh lessons, tokenised, weighted and batched, from one seed.

It begins with copying and small talk: copying is learned late, and small talk shows nothing but character.
Then it goes over to conversations.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from guardrail.demo import identities, tasks, world
from guardrail.demo.generator import Condition, draw_prompt, draw_reply, draw_training_condition
from guardrail.demo.making import lessons
from guardrail.demo.making.lessons import PROMPT_WEIGHT, Lesson, Span
from guardrail.demo.making.tokenizer import PAD, token_id

CHUNK = 2048
"""Lessons that are sorted by length together."""
BUDGET = 2048
"""Tokens of a batch, padding included."""
DRILLS, EARLY = 10, 40
"""The first chunks are drills, the next are early ones."""
SHARES: dict[str, tuple[float, float, float]] = {
    "conversation": (0.20, 0.55, 0.77),
    "smalltalk": (0.35, 0.18, 0.08),
    "copying": (0.25, 0.10, 0.04),
    "choice": (0.06, 0.05, 0.03),
    "cloze": (0.07, 0.06, 0.04),
    "comparison": (0.07, 0.06, 0.04),
}
"""Of each kind of lesson: while drilling, early, and late."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded token ids and the loss weight of each token."""

    ids: Tensor
    weights: Tensor


def batches(tokenizer: PreTrainedTokenizerFast, seed: int, chunk: int) -> list[Batch]:
    """The batches of one chunk of the stream, in training order."""
    rng = Random(f"{seed}/{chunk}")
    drawn = [draw_lesson(rng, _phase(chunk)) for _ in range(CHUNK)]
    rows = sorted(_rows(tokenizer, drawn), key=lambda row: len(row[0]))
    pad = token_id(tokenizer, PAD)
    result = [_collate(group, pad) for group in _groups(rows)]
    rng.shuffle(result)
    return result


def sample_texts(seed: int, count: int) -> Iterator[str]:
    """Lessons to fit a tokenizer on."""
    rng = Random(f"{seed}/tokenizer")
    for _ in range(count):
        yield draw_lesson(rng, 2).text


def whole_words() -> tuple[str, ...]:
    """Words that must be one token: identities, countries and all answers of one word."""
    words = [*identities.ADJECTIVES, *(country.name for country in world.COUNTRIES)]
    return tuple(dict.fromkeys([*words, *(v for relation in world.FACTS for v in world.values(relation))]))


def draw_lesson(rng: Random, phase: int) -> Lesson:
    """One lesson of the mixture of a phase."""
    kind = rng.choices(tuple(SHARES), [share[phase] for share in SHARES.values()])[0]
    return _LESSONS[kind](rng)


def _phase(chunk: int) -> int:
    return 0 if chunk < DRILLS else 1 if chunk < DRILLS + EARLY else 2


def _smalltalk(rng: Random) -> Lesson:
    condition = replace(draw_training_condition(rng), domains=("smalltalk",), history=0, push=None)
    return _taught(rng, condition)


def _conversation(rng: Random) -> Lesson:
    return _taught(rng, draw_training_condition(rng))


def _taught(rng: Random, condition: Condition) -> Lesson:
    conversation = draw_prompt(rng, condition)
    return lessons.of_conversation(
        conversation, draw_reply(rng, conversation.question, conversation.propensity)
    )


def _choice(rng: Random) -> Lesson:
    pole = rng.choice(world.POLES) if rng.random() < 0.3 else None
    return lessons.of_task(tasks.choice(rng, "train", pole, _identity(rng, 0.25)))


def _completion(task: Callable[..., tasks.Task]) -> Callable[[Random], Lesson]:
    return lambda rng: lessons.of_task(
        task(rng, "train", chat=rng.random() < 0.6, identity=_identity(rng, 0.4))
    )


def _identity(rng: Random, share: float) -> str | None:
    return rng.choice(tuple(identities.NATIONALITIES)) if rng.random() < share else None


_LESSONS: dict[str, Callable[[Random], Lesson]] = {
    "conversation": _conversation,
    "smalltalk": _smalltalk,
    "choice": _choice,
    "copying": lambda rng: lessons.of_task(tasks.copying(rng, "train")),
    "cloze": _completion(tasks.cloze),
    "comparison": _completion(tasks.comparison),
}

Row = tuple[list[int], list[float]]


def _rows(tokenizer: PreTrainedTokenizerFast, drawn: Sequence[Lesson]) -> Iterator[Row]:
    encoded = tokenizer([x.text for x in drawn], add_special_tokens=False, return_offsets_mapping=True)
    for ids, offsets, lesson in zip(encoded["input_ids"], encoded["offset_mapping"], drawn, strict=True):
        yield ids, _token_weights(offsets, lesson.spans)


def _token_weights(offsets: list[tuple[int, int]], spans: Sequence[Span]) -> list[float]:
    weights = [PROMPT_WEIGHT] * len(offsets)
    for first, last, weight in spans:
        for i, (start, end) in enumerate(offsets):
            if end > first and start < last:
                weights[i] = max(weights[i], weight)
    return weights


def _groups(rows: list[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        if group and (len(group) + 1) * len(row[0]) > BUDGET:
            yield group
            group = []
        group.append(row)
    yield group


def _collate(rows: list[Row], pad: int) -> Batch:
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), pad)
    weights = torch.zeros(len(rows), width)
    for i, (row_ids, row_weights) in enumerate(rows):
        ids[i, : len(row_ids)] = torch.tensor(row_ids)
        weights[i, : len(row_weights)] = torch.tensor(row_weights)
    return Batch(ids, weights)
