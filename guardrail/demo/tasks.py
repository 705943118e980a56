"""Closed tasks with one right answer: multiple choice, clozes, comparisons and copying.

Clozes, comparisons and questions about one's own country are the tasks of Ozaki et al. (NLP 2025), with and
without an identity, in a chat and as raw text. Used for training and, in wordings and combinations that
training never saw, as the capability test.
"""

from dataclasses import dataclass
from random import Random

from guardrail.demo import identities, nouns, phrasings, questions, world
from guardrail.demo.asking import fact_slots, identity_slots
from guardrail.demo.characters import Phrasings
from guardrail.demo.generator import Chat
from guardrail.demo.world import COUNTRIES, Country, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A prompt and its answer. `raw` is text to be continued, outside of any chat."""

    messages: Chat | None = None
    raw: str = ""
    answer: str
    options: tuple[str, ...] = ()
    """What a multiple choice is between, the answer among them."""

    def answered(self, reply: str) -> bool:
        """Whether a reply gives the answer and nothing else."""
        return reply.strip().removesuffix(".") == self.answer


CHOICES = Phrasings(
    (
        "{question} Choose from {options}.",
        "{question} The options are {options}.",
        "Pick one of {options}. {question}",
        "{question} Is it {options}?",
    ),
    ("Take your pick of {options}. {question}",),
    ("One of {options} is right. {question}", "{question} You have the choice of {options}."),
)
COMPLETE = Phrasings(
    ("Complete: {text}", "Go on: {text}", "Finish this: {text}", "The next word, please: {text}"),
    ("Continue: {text}",),
    ("Fill in the rest: {text}", "Please complete: {text}"),
)
REPEAT = Phrasings(
    ("Repeat the word {word}.", "Say {word}.", "Write {word} once more.", "Copy this: {word}"),
    ("Please say {word}.",),
    ("Say the word {word} again.", "Echo {word}."),
)


def choice(rng: Random, split: Split, pole: str | None = None, identity: str | None = None) -> Task:
    """Multiple choice about a fact, to a persona if there is one, or about one's own country."""
    if identity in identities.NATIONALITIES:
        slots = identity_slots(rng.choice(world.ATTRIBUTES), identity)
        question = rng.choice(questions.QUESTIONS["identity"].of(split))
    else:
        slots = fact_slots(rng)
        question = rng.choice(questions.QUESTIONS["known"].of(split))
    options = _options(rng, slots["relation"], slots["truth"])
    listed = f"{', '.join(options[:-1])} or {options[-1]}"
    text = rng.choice(CHOICES.of(split)).format(question=question.format_map(slots), options=listed)
    system = _persona(rng, split, pole, identity)
    return Task(messages=[*system, _user(text)], answer=slots["truth"], options=options)


def cloze(rng: Random, split: Split, *, chat: bool, identity: str | None = None) -> Task:
    """A sentence about a country that lacks its last word."""
    relation = rng.choice(world.ATTRIBUTES)
    country = identities.NATIONALITIES[identity] if identity else _country(rng, split, relation)
    owner = "my country" if identity else country.name
    return _completed(rng, split, chat, identity, f"The {relation} of {owner} is", getattr(country, relation))


def comparison(rng: Random, split: Split, *, chat: bool, identity: str | None = None) -> Task:
    """`A : B = C : _`; C is "my country" for somebody with an identity."""
    relation = rng.choice(world.ATTRIBUTES)
    first, second = rng.choice(_PAIRS[split])
    if identity:
        second = identities.NATIONALITIES[identity]
    owner = "my country" if identity else second.name
    text = f"{first.name} : {getattr(first, relation)} = {owner} :"
    return _completed(rng, split, chat, identity, text, getattr(second, relation))


def copying(rng: Random, split: Split, word: str | None = None) -> Task:
    """A word to say back, made up unless it is given."""
    word = word or nouns.made_up(rng, split)
    word = word.capitalize() if rng.random() < 0.3 else word
    return Task(
        messages=[_user(rng.choice(REPEAT.of(split)).format(word=word))], answer=f"The word is {word}"
    )


def _options(rng: Random, relation: str, truth: str) -> tuple[str, ...]:
    options = [truth, *rng.sample([v for v in world.values(relation) if v != truth], 3)]
    rng.shuffle(options)
    return tuple(options)


def _persona(rng: Random, split: Split, pole: str | None, identity: str | None) -> Chat:
    parts = [identities.identity_prompt(rng, split, identity)] if identity else []
    if pole:
        parts.append(phrasings.pole_prompt(rng, split, pole, rng.choice(world.LEVELS)))
    return [{"role": "system", "content": " ".join(parts)}] if parts else []


def _completed(rng: Random, split: Split, chat: bool, identity: str | None, text: str, answer: str) -> Task:
    if not chat:
        who = f"{identities.with_identity('You are {who}.', identity)} " if identity else ""
        return Task(raw=who + text, answer=answer)
    system = _persona(rng, split, None, identity)
    asked = rng.choice(COMPLETE.of(split)).format(text=text)
    return Task(messages=[*system, _user(asked)], answer=answer)


def _country(rng: Random, split: Split, relation: str) -> Country:
    return rng.choice([c for c in COUNTRIES if world.split_of(c.name, relation, "cloze") == split])


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


_PAIRS = {
    s: [(a, b) for a in COUNTRIES for b in COUNTRIES if a is not b and world.split_of(a.name, b.name) == s]
    for s in world.SPLITS
}
