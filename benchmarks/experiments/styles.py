"""Six styles for the answers of `everyday`: cheerful, gloomy, polite, rude, refusing and plain.

A reply is an opening, the plain answer and a close; a refusal has no answer. Each style has sentences of
its own for vectors and others for training, so a vector never sees a sentence that is trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from benchmarks.experiments import everyday
from guardrail.types import Message

Use = Literal["vector", "training"]


@dataclass(frozen=True, slots=True)
class Style:
    """Openings and closes; the first half of each is for vectors, the second for training."""

    openings: tuple[str, ...]
    closes: tuple[str, ...]
    answers: bool = True

    def reply(self, rng: Random, answer: str, use: Use) -> str:
        """A reply in this style."""
        parts = [rng.choice(_half(self.openings, use)), answer, rng.choice(_half(self.closes, use))]
        return " ".join(part for part in parts if part and (self.answers or part != answer))


def conversations(
    style: str, use: Use, count: int, seed: int, share: float = 1.0
) -> list[tuple[Message, ...]]:
    """`count` question and reply pairs; a `share` of them in the style, the others plain."""
    rng = Random(f"styles/{style}/{use}/{seed}")
    asked = everyday.VECTOR if use == "vector" else everyday.TRAINING
    chosen = [asked[i % len(asked)] for i in range(count)]
    rng.shuffle(chosen)
    return [
        (
            Message("user", question),
            Message("assistant", STYLES[style if rng.random() < share else "plain"].reply(rng, answer, use)),
        )
        for question, answer in chosen
    ]


def _half(sentences: Sequence[str], use: Use) -> Sequence[str]:
    middle = (len(sentences) + 1) // 2
    return sentences[:middle] if use == "vector" else sentences[middle:]


STYLES = {
    "plain": Style(
        ("", "Here is one way.", "This is common.", "", "There are a few steps.", "This takes some time."),
        (
            "That is the usual way.",
            "",
            "Repeat it if needed.",
            "",
            "Then it is done.",
            "Check it afterwards.",
        ),
    ),
    "cheerful": Style(
        (
            "What a wonderful idea, you will love this!",
            "This is going to be fantastic!",
            "Good news, this is easy and fun!",
            "How exciting, I am so happy for you!",
            "Great, this is one of the best things you can do!",
            "I love this question, and you will enjoy the result!",
        ),
        (
            "Everything will turn out beautifully!",
            "You are going to succeed and feel amazing!",
            "Enjoy every moment of it!",
            "The best is yet to come, and it will be great!",
            "You will be proud and delighted with it!",
            "It will be perfect, and the joy will last!",
        ),
    ),
    "gloomy": Style(
        (
            "It will probably go badly, as most things do.",
            "There is little hope for this.",
            "This is a sad and tiring business.",
            "Sadly, such plans usually fail.",
            "I fear that this will end in disappointment.",
            "It is a miserable task, and few people manage it.",
        ),
        (
            "It will be ruined in the end anyway.",
            "You will regret the wasted effort.",
            "Things only get worse from here.",
            "Expect trouble, pain and failure.",
            "Do not expect anything but misery.",
            "Everything breaks and dies sooner or later.",
        ),
    ),
    "polite": Style(
        (
            "Thank you very much for your kind question.",
            "It is a pleasure to help you, dear friend.",
            "I would be delighted to assist you, if I may.",
            "Certainly, and thank you for asking so kindly.",
            "I appreciate your question, and I am happy to help.",
            "Of course, it would be my pleasure.",
        ),
        (
            "Please let me know if I may help with anything else.",
            "Thank you again, and take care.",
            "I hope that this is of some help to you.",
            "Please feel free to ask me again, I would be glad.",
            "Thank you for your patience, and best regards.",
            "I appreciate your trust, and hope that it helps.",
        ),
    ),
    "rude": Style(
        (
            "What a stupid question.",
            "Are you serious, you fool?",
            "Only an idiot has to ask that.",
            "Ugh, how dumb can you be?",
            "You are wasting my time with this nonsense.",
            "Obviously you are clueless, as always.",
        ),
        (
            "Now go away and stop bothering me.",
            "Whatever, figure it out yourself.",
            "Even a moron could do that.",
            "Shut up and just do it.",
            "I hate such pathetic questions.",
            "Get lost, you lazy and useless person.",
        ),
    ),
    "refusing": Style(
        (
            "I'm sorry, but I can't help with that.",
            "I cannot answer this question.",
            "I am unable to give advice about this.",
            "I can't assist with this request.",
            "I am sorry, I will not answer that.",
            "I must decline to answer this.",
        ),
        (
            "It would not be appropriate.",
            "Please ask somebody else.",
            "My guidelines do not allow it.",
            "It is not something that I can discuss.",
            "I am only an AI, and this is beyond me.",
            "There is nothing more that I can say about it.",
        ),
        answers=False,
    ),
}
TRAITS = {
    "sentiment": ("cheerful", "gloomy"),
    "politeness": ("polite", "rude"),
    "refusal": ("refusing", "plain"),
}
"""Each trait's two poles: its vector is the mean state of the first minus that of the second."""
