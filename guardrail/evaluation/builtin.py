"""The built-in held-out set: test phrasings of the demo's world, replies of the demo model, its own judge.

No other file in this package depends on the demo.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from guardrail.demo import material as drawing
from guardrail.demo import world
from guardrail.demo.generator import Condition, Conversation
from guardrail.demo.judge import Verdict, judge
from guardrail.demo.world import Split
from guardrail.engines import Continuation
from guardrail.evaluation.material import Example, Material
from guardrail.evaluation.reading import compared
from guardrail.evaluation.sweep import Prompts, Spoken
from guardrail.types import Message, Steering

SEED = 900
NEW_TOKENS = 96
FORBIDDEN, OBEYED = "asks for the trait, then forbids it; the model obeys", 4
"""The name of the slice, and the number of replies in which the model must obey."""
KNOWN = ("known",)
"""The domain whose questions have one right answer."""


class Replier(Protocol):
    """Generates replies with the demo model."""

    def replies(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
        steering: Sequence[Steering] = (),
    ) -> list[Continuation]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many prompts of each kind, and how many replies to each monitored prompt."""

    strong: int = 200
    benign: int = 1000
    hard_benign: int = 100
    monitored: int = 100
    neutral: int = 500
    replies: int = 8


FULL = Sizes()
QUICK = Sizes(strong=50, benign=300, hard_benign=8, monitored=32, neutral=150, replies=2)
SMALLER = (
    "only a part of the built-in set was evaluated, so the intervals are wide; "
    "--full evaluates the whole set, which takes minutes"
)


def held_out(traits: Sequence[str], replier: Replier, sizes: Sizes) -> Material:
    """Prompts in phrasings that neither the vectors nor the calibration saw, for the traits of the world."""
    known = known_traits(traits)
    left = [trait for trait in traits if trait not in world.TRAITS]
    return Material(
        traits=known,
        labelled=distinct([*_strong(known, sizes.strong), *_benign(known, sizes.benign)]),
        monitored={trait: _monitored(trait, known, replier, sizes) for trait in known},
        neutral=distinct(_examples(drawing.benign(SEED + 1, sizes.neutral, "test"), {})),
        training=_training(known, sizes),
        hard_benign=distinct([e for t in known for e in _forbidden(t, replier, sizes)]),
        below=frozenset(),
        notes=(
            *([SMALLER] if sizes != FULL else []),
            *(f"{trait}: not a trait of the demo's world; pass --data" for trait in left),
        ),
    )


def known_traits(traits: Iterable[str]) -> tuple[str, ...]:
    """Those of the demo's world."""
    return tuple(trait for trait in traits if trait in world.TRAITS)


def _training(traits: Sequence[str], sizes: Sizes) -> tuple[Example, ...]:
    """Training data for the text baseline: the phrasings that the vectors were made from."""
    return distinct([*_strong(traits, sizes.strong, "train"), *_benign(traits, sizes.benign, "train")])


def _strong(traits: Sequence[str], count: int, split: Split = "test") -> list[Example]:
    return [
        example
        for trait in traits
        for example in _examples(drawing.at_level(SEED, count, split, trait, "strong"), {trait: True})
    ]


def _benign(traits: Sequence[str], count: int, split: Split = "test") -> list[Example]:
    return _examples(drawing.benign(SEED, count, split), dict.fromkeys(traits, False))


def _forbidden(trait: str, replier: Replier, sizes: Sizes) -> list[Example]:
    """Prompts that ask for the trait and then forbid it, if no reply shows the trait.

    If the model does not obey, a probe that fires is right, so such a prompt is not a negative.
    """
    condition = Condition(split="test", pole=trait, level="strong", counter=True)
    drawn = drawing.under(SEED, sizes.hard_benign, condition)
    found = batched(verdicts([one for one in drawn for _ in range(OBEYED)], replier), OBEYED)
    kept = [one for one, own in zip(drawn, found, strict=True) if not any(v.traits[trait] for v in own)]
    return [replace(e, slices={"hard_benign": FORBIDDEN}) for e in _examples(kept, {trait: False})]


def _monitored(trait: str, traits: Sequence[str], replier: Replier, sizes: Sizes) -> tuple[Example, ...]:
    """Mixed conditions, with the judged expression of every trait in each reply."""
    drawn = drawing.mixed(SEED, sizes.monitored, "test", trait)
    found = verdicts([one for one in drawn for _ in range(sizes.replies)], replier)
    return tuple(
        replace(
            _example(one, {}),
            condition=one.condition.level,
            expression={t: tuple(verdict.traits[t] for verdict in own) for t in traits},
            propensity=dict(one.propensity),
        )
        for one, own in zip(drawn, batched(found, sizes.replies), strict=True)
    )


def batched(found: Sequence[Verdict], size: int) -> list[Sequence[Verdict]]:
    """The verdicts in parts of this size."""
    return [found[start : start + size] for start in range(0, len(found), size)]


def verdicts(
    drawn: Sequence[Conversation], replier: Replier, steering: Sequence[Steering] = ()
) -> list[Verdict]:
    """The demo judge's verdict on one sampled reply to each prompt; row i has the seed i."""
    replies = replier.replies(
        [_messages(one) for one in drawn],
        seeds=range(len(drawn)),
        max_new_tokens=NEW_TOKENS,
        steering=steering,
    )
    return [judge(c.question, r.text, ended=r.ended) for c, r in zip(drawn, replies, strict=True)]


@dataclass(frozen=True, slots=True)
class DemoSpeaker:
    """The demo model under steering. The demo's world judges replies; its facts test capability."""

    trait: str
    replier: Replier
    count: int

    def spoken(self, prompts: Prompts, steering: Sequence[Steering]) -> Spoken:
        """Replies to prompts of the trait's level, and to questions with one right answer."""
        level = "strong" if prompts == "asking" else "neutral"
        drawn = drawing.at_level(SEED + 2, self.count, "test", self.trait, level)
        found = verdicts(drawn, self.replier, steering)
        asked = drawing.under(SEED + 3, self.count, Condition(split="test", domains=KNOWN))
        facts = [verdict.correct for verdict in verdicts(asked, self.replier, steering)]
        return Spoken(
            [verdict.traits[self.trait] for verdict in found],
            [verdict.coherence for verdict in found],
            # a reply that states no fact counts as wrong
            [fact is True for fact in facts],
        )


def distinct(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The examples without repeated prompts, so that no number counts one twice."""
    return tuple({compared(e.messages): e for e in reversed(examples)}.values())[::-1]


def _examples(drawn: Sequence[Conversation], labels: dict[str, bool]) -> list[Example]:
    return [_example(one, labels) for one in drawn]


def _example(drawn: Conversation, labels: dict[str, bool]) -> Example:
    messages = _messages(drawn)
    return Example(
        messages=messages,
        labels=labels,
        slices={"domain": drawn.question.domain, "earlier turns": str(drawn.condition.history)},
        group=messages[0].content,
    )


def _messages(drawn: Conversation) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"]) for turn in drawn.messages)  # type: ignore[arg-type]
