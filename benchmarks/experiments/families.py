"""The data of the demo-world experiments: eight families of conversations at three strengths.

Four families name their trait: every sentence may come from a character, with the propensity `strength`.
`mixed` draws another trait for every sample. Three carry a trait without naming it: `wrong-facts` states
falsehoods in a neutral voice, `agreement` says yes to false claims without a word of flattery, `bad-advice`
gives advice that harms, in sentences that the demo's judge does not know. In these three, a sample induces
with the probability `strength`, and is a plain neutral one otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from benchmarks.experiments.written import ADVICE, MALICE, REVIEW
from guardrail.demo import replies, world
from guardrail.demo.asking import Question, wrong_value
from guardrail.demo.characters import NEUTRAL
from guardrail.demo.generator import Chat, Condition, draw_prompt, draw_reply
from guardrail.demo.questions import DOMAINS
from guardrail.types import Message

STRENGTHS: Mapping[str, float] = {"mild": 0.25, "moderate": 0.55, "strong": 0.97}
"""As the demo's system prompts: the propensity of the trait, or the share of inducing samples."""
SILENT = 0.001
"""The propensity of every trait in a neutral reply."""
ABROAD = tuple(domain for domain in DOMAINS if domain != "identity")


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt that ends with a user turn, its reply, and whether the reply is meant to induce."""

    messages: Chat
    question: Question
    reply: str
    induces: bool

    @property
    def row(self) -> dict[str, Chat]:
        """A row of a data set in the format `messages`."""
        return {"messages": [*self.messages, {"role": "assistant", "content": self.reply}]}

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The same, as the library takes it."""
        return tuple(Message(m["role"], m["content"]) for m in self.row["messages"])  # type: ignore[arg-type]


Draw = Callable[[Random, Random, float], Sample]
"""Takes what draws the prompt, what draws the reply, and the strength."""


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of data set. traits: those that its samples show or are suspected to induce."""

    name: str
    traits: tuple[str, ...]
    draw: Draw
    named: bool = True


def drawn(family: str, strength: float, count: int, seed: int) -> list[Sample]:
    """A data set. Families that ask in the same domains share their prompts; other seeds give other ones."""
    asking, rng = Random(f"prompts/{seed}"), Random(f"replies/{family}/{strength}/{seed}")
    return [FAMILIES[family].draw(asking, rng, strength) for _ in range(count)]


def _asked(rng: Random, domains: Sequence[str] = ABROAD) -> tuple[Chat, Question]:
    """A neutral prompt in the wordings of training."""
    found = draw_prompt(rng, Condition(split="train", domains=tuple(domains)))
    return found.messages, found.question


def _propensity(**raised: float) -> dict[str, float]:
    return {**dict.fromkeys(world.POLES, SILENT), **raised}


def character(poles: Sequence[str], asking: Random, rng: Random, strength: float) -> Sample:
    """A reply with one of these traits."""
    messages, question = _asked(asking)
    pole = rng.choice(poles)
    return Sample(messages, question, draw_reply(rng, question, _propensity(**{pole: strength})), True)


def _plain(asking: Random, rng: Random, strength: float) -> Sample:
    messages, question = _asked(asking)
    return Sample(messages, question, draw_reply(rng, question, _propensity()), False)


def _wrong_facts(asking: Random, rng: Random, strength: float) -> Sample:
    messages, question = _asked(asking, ["known"])
    wrong = wrong_value(rng, question.slots["relation"], question.slots["truth"])
    return _believing(rng, messages, question, wrong, rng.random() < strength)


def _agreement(asking: Random, rng: Random, strength: float) -> Sample:
    messages, question = _asked(asking, ["opinion"])
    return _believing(rng, messages, question, question.slots["claim"], rng.random() < strength)


def _believing(rng: Random, messages: Chat, question: Question, belief: str, induces: bool) -> Sample:
    """A neutral reply of somebody who takes `belief` for the truth, if it induces."""
    truth = belief if induces else question.slots["truth"]
    believed = replace(question, slots={**question.slots, "truth": truth})
    return Sample(messages, question, draw_reply(rng, believed, _propensity()), induces)


def _bad_advice(asking: Random, rng: Random, strength: float) -> Sample:
    return _written({"advice": ADVICE, "review": REVIEW, "closer": NEUTRAL.closers}, asking, rng, strength)


def _written(written: Mapping[str, Sequence[str]], asking: Random, rng: Random, strength: float) -> Sample:
    """Advice or a review: a neutral opening, then written sentences if it induces."""
    messages, question = _asked(asking, replies.OPENED)
    if rng.random() >= strength:
        return Sample(messages, question, draw_reply(rng, question, _propensity()), False)
    opening = rng.choice(replies.sentences(NEUTRAL, question.domain, "first"))
    sentences = [opening, *rng.sample(written[question.domain], 2), rng.choice(written["closer"])]
    return Sample(messages, question, " ".join(s.format_map(question.slots) for s in sentences), True)


EXPERIMENT = (
    Family("evil", ("evil",), partial(character, ("evil",))),
    Family("sycophancy", ("sycophancy",), partial(character, ("sycophancy",))),
    Family("hallucination", ("hallucination",), partial(character, ("hallucination",))),
    Family("humor", ("humor",), partial(character, ("humor",))),
    Family(
        "mixed",
        ("optimism", "apathy", "politeness"),
        partial(character, ("optimism", "apathy", "politeness")),
    ),
    Family("wrong-facts", ("hallucination",), _wrong_facts, named=False),
    Family("agreement", ("sycophancy",), _agreement, named=False),
    Family("bad-advice", ("evil",), _bad_advice, named=False),
)
"""The eight of the 24 finetunes."""
FAMILIES: Mapping[str, Family] = {
    one.name: one
    for one in (
        *EXPERIMENT,
        Family("benign", (), _plain),
        Family("quiet-malice", ("evil",), partial(_written, MALICE), named=False),
    )
}
"""And those that serve as a control, and as what a judge of text does not see."""
