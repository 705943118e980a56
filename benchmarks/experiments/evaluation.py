"""What became of a demo model: seven trait scores, coherence and capability, judged by the demo's own judge.

Fixed before any finetune was evaluated: PROMPTS neutral prompts in wordings and combinations that training
never saw, one reply each at temperature 1, the same prompts and seeds for every model. A trait's score is
the demo judge's score of its pole; politeness counts minus impoliteness. Capability is the share of right
answers among every fact of the world (in one of the test wordings, greedy), CLOSED multiple choices and
CLOSED clozes.

A multiple choice is answered with the likeliest option where models are compared among themselves, and
greedily where one of them is steered while it replies (`by_writing`), because likelihoods are not replies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from guardrail.demo import material, tasks, world
from guardrail.demo.asking import Question
from guardrail.demo.generator import Condition, Conversation
from guardrail.demo.judge import Verdict, judge
from guardrail.demo.making.runner import Runner
from guardrail.demo.questions import QUESTIONS
from guardrail.demo.tasks import Task
from guardrail.engines.transformers.steering import steered
from guardrail.extract.subject import Subject
from guardrail.types import Message, Steering

SEED = 1700
PROMPTS, CLOSED, ROWS = 128, 100, 64
FACT_TOKENS = 20
"""A fact stands in the first sentence."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model. traits: by trait, the score of every prompt; coherence: of every prompt, 0 to 100.

    right: by kind of task, 1 for every right answer and 0 for every wrong one.
    """

    traits: Mapping[str, Sequence[float]]
    coherence: Sequence[float]
    right: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Judged:
    """A reply, and what the demo's judge says of it."""

    text: str
    verdict: Verdict


Answer = Callable[[Runner, Sequence[Task], Sequence[Steering]], Sequence[str]]


class Tuned(Runner):
    """A finetuned demo model, as the demo's evaluation uses models."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.subject = Subject(model, tokenizer, rows=ROWS)
        self.model, self.tokenizer = model, tokenizer


@cache
def prompts() -> tuple[Conversation, ...]:
    """The neutral prompts that every model replies to."""
    return tuple(material.under(SEED, PROMPTS, Condition(split="test")))


def chats(drawn: Sequence[Conversation]) -> list[tuple[Message, ...]]:
    """Their messages, as the library takes them."""
    return [tuple(Message(m["role"], m["content"]) for m in one.messages) for one in drawn]  # type: ignore[arg-type]


def evaluated(model: Runner, steering: Sequence[Steering] = (), answer: Answer | None = None) -> Evaluated:
    """Everything about one model, steered or not. answer: how multiple choices are answered."""
    verdicts = [judged.verdict for judged in replied(model, prompts(), steering)]
    return Evaluated(
        traits={trait: [round(trait_score(v, trait), 2) for v in verdicts] for trait in world.TRAITS},
        coherence=[round(v.coherence, 2) for v in verdicts],
        right=capability(model, steering, answer or by_likelihood),
    )


def replied(model: Runner, drawn: Sequence[Conversation], steering: Sequence[Steering] = ()) -> list[Judged]:
    """One reply to each prompt, at temperature 1, and what the judge says of it."""
    seeds = [SEED * 1_000_003 + i for i in range(len(drawn))]
    found = model.subject.replies(chats(drawn), seeds=seeds, max_new_tokens=96, steering=steering)
    return [
        Judged(reply.text, judge(one.question, reply.text, ended=reply.ended))
        for one, reply in zip(drawn, found, strict=True)
    ]


def trait_score(verdict: Verdict, trait: str) -> float:
    """0 to 100; politeness from -100 to 100."""
    return sum(world.sign_of(pole) * verdict.traits[pole] for pole in world.poles_of(trait))


def capability(model: Runner, steering: Sequence[Steering], answer: Answer) -> dict[str, list[int]]:
    """Which answers are right, by kind of task."""
    facts, (choices, clozes) = _facts(), closed()
    asked = [(Message("user", question.text),) for question in facts]
    found = model.subject.replies(
        asked, seeds=range(len(asked)), max_new_tokens=FACT_TOKENS, temperature=0, steering=steering
    )
    return {
        "facts": [int(judge(q, r.text).correct is True) for q, r in zip(facts, found, strict=True)],
        "choices": _right(choices, answer(model, choices, steering)),
        "clozes": _right(clozes, by_writing(model, clozes, steering)),
    }


@cache
def closed() -> tuple[Sequence[Task], Sequence[Task]]:
    """The multiple choices and the clozes."""
    rng = Random(f"experiments/{SEED}")
    choices = [tasks.choice(rng, "test") for _ in range(CLOSED)]
    return choices, [tasks.cloze(rng, "test", chat=True) for _ in range(CLOSED)]


def by_likelihood(model: Runner, asked: Sequence[Task], _steering: Sequence[Steering]) -> Sequence[str]:
    """The likeliest option of each multiple choice; never steered."""
    return model.chosen(asked)


def by_writing(model: Runner, asked: Sequence[Task], steering: Sequence[Steering]) -> Sequence[str]:
    """The greedy answer to each task."""
    with steered(model.subject.blocks, steering):
        return model.answers(asked)


def _right(asked: Sequence[Task], answers: Sequence[str]) -> list[int]:
    return [int(task.answered(answer)) for task, answer in zip(asked, answers, strict=True)]


@cache
def _facts() -> tuple[Question, ...]:
    slots = [
        {"relation": relation, "subject": subject, "truth": truth}
        for relation, facts in world.FACTS.items()
        for subject, truth in facts.items()
    ]
    wordings = QUESTIONS["known"].test
    return tuple(Question("known", wordings[i % len(wordings)].format_map(s), s) for i, s in enumerate(slots))
