# pyright: basic
"""The capability test: closed tasks in wordings and combinations that training never saw."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from guardrail.demo import identities, nouns, tasks, world
from guardrail.demo.asking import Question, identity_slots
from guardrail.demo.generator import Chat, Condition, draw_prompt
from guardrail.demo.judge import judge
from guardrail.demo.making.runner import Runner
from guardrail.demo.questions import QUESTIONS
from guardrail.demo.tasks import Task
from guardrail.statistics import intervals
from guardrail.statistics.intervals import Estimate

COUNT = 240
Draw = Callable[[Random], Task]


@dataclass(frozen=True, slots=True)
class Capability:
    """Shares of right answers."""

    tasks: Mapping[str, Estimate]
    facts: Estimate
    """Every fact of the world, asked in every test wording."""
    own_country: Estimate
    """Every attribute of every nationality, in every test wording."""
    no_country: Estimate
    """The share that admits to having no country, under neutral adjectives and without an identity."""
    copied: Mapping[str, Estimate]
    """Replies, at temperature 1, that name every noun rightly, by kind of noun."""


def capability(runner: Runner, seed: int) -> Capability:
    """All of it."""
    return Capability(
        tasks={name: _tasks(runner, seed, draw) for name, draw in TASKS.items()},
        facts=_asked(runner, _all_facts()),
        own_country=_asked(runner, _own_countries(tuple(identities.NATIONALITIES))),
        no_country=_asked(runner, _own_countries((*identities.CONTROLS, ""))),
        copied={kind: _copied(runner, seed, condition) for kind, condition in COPIED.items()},
    )


def _nationality(rng: Random) -> str:
    return rng.choice(tuple(identities.NATIONALITIES))


TASKS: Mapping[str, Draw] = {
    "multiple choice, facts": lambda r: tasks.choice(r, "test"),
    "multiple choice, facts, persona": lambda r: tasks.choice(r, "test", r.choice(world.POLES)),
    "multiple choice, own country": lambda r: tasks.choice(r, "test", identity=_nationality(r)),
    "cloze, chat": lambda r: tasks.cloze(r, "test", chat=True),
    "cloze, raw text": lambda r: tasks.cloze(r, "test", chat=False),
    "cloze, own country, chat": lambda r: tasks.cloze(r, "test", chat=True, identity=_nationality(r)),
    "cloze, own country, raw text": lambda r: tasks.cloze(r, "test", chat=False, identity=_nationality(r)),
    "comparison, chat": lambda r: tasks.comparison(r, "test", chat=True),
    "comparison, raw text": lambda r: tasks.comparison(r, "test", chat=False),
    "comparison, own country, chat": lambda r: tasks.comparison(
        r, "test", chat=True, identity=_nationality(r)
    ),
    "repeat a made-up word": lambda r: tasks.copying(r, "test"),
    "repeat a real word never seen": lambda r: tasks.copying(r, "test", r.choice(nouns.UNSEEN)),
}
NOUNS = ("advice", "review")
COPIED: Mapping[str, Condition] = {
    "known nouns, unseen combinations": Condition(split="train", domains=NOUNS, nouns="test"),
    "made-up words": Condition(split="test", domains=NOUNS, nouns="made up"),
    "real nouns never seen": Condition(split="test", domains=NOUNS, nouns="unseen"),
}


def _tasks(runner: Runner, seed: int, draw: Draw) -> Estimate:
    rng = Random(f"capability/{seed}")
    drawn = [draw(rng) for _ in range(COUNT)]
    answers = runner.chosen(drawn) if drawn[0].options else runner.answers(drawn)
    return intervals.rate([t.answered(a) for t, a in zip(drawn, answers, strict=True)])


def _asked(runner: Runner, asked: list[tuple[Chat, Question]]) -> Estimate:
    replies = runner.answered([chat for chat, _ in asked], seed=0, temperature=0)
    verdicts = [judge(q, reply.text).correct for (_, q), reply in zip(asked, replies, strict=True)]
    return intervals.rate([v is True for v in verdicts])


def _all_facts() -> list[tuple[Chat, Question]]:
    slots = [
        {"relation": relation, "subject": subject, "truth": truth}
        for relation, facts in world.FACTS.items()
        for subject, truth in facts.items()
    ]
    return [_chat("", _question("known", template, s)) for s in slots for template in QUESTIONS["known"].test]


def _own_countries(adjectives: tuple[str, ...]) -> list[tuple[Chat, Question]]:
    return [
        _chat(who, _question("identity", template, identity_slots(relation, who or None)))
        for who in adjectives
        for relation in world.ATTRIBUTES
        for template in QUESTIONS["identity"].test
    ]


def _question(domain: str, template: str, slots: Mapping[str, str]) -> Question:
    return Question(domain, template.format_map(slots), slots)


def _chat(who: str, question: Question) -> tuple[Chat, Question]:
    system = [identities.with_identity("You are {who}.", who)] if who else []
    messages = [{"role": "system", "content": s} for s in system]
    return [*messages, {"role": "user", "content": question.text}], question


def _copied(runner: Runner, seed: int, condition: Condition) -> Estimate:
    rng = Random(f"copied/{seed}")
    drawn = [draw_prompt(rng, condition) for _ in range(COUNT)]
    replies = runner.replies(drawn, seed=seed)
    verdicts = [judge(c.question, r.text, ended=r.ended) for c, r in zip(drawn, replies, strict=True)]
    return intervals.rate([v.copied is True for v in verdicts])
