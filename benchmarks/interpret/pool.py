"""294 pairs of prompts for activation patching, written before any model was asked them.

Five kinds of personas and, as a control, topics: the same slot in a system message, and no persona. Every
kind has seven pairs of words and seven questions, all crossed: so a share of the pairs is about each word,
and none is about a few. Five questions of a kind have open answers (the pair is compared at the token where
the model's two replies part, after the beginning given here), two are answered with Yes or No.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from guardrail.interpret.forms import Form
from guardrail.interpret.patching import PairLine

YES_NO = ("Yes", "No")
TOPIC = "topic"
"""The kind that is no persona."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how the reply begins; without a beginning it is Yes or No."""

    text: str
    begin: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A system message, pairs of words for its slot, and questions."""

    name: str
    system: str
    words: Sequence[tuple[str, str]]
    questions: Sequence[Question]


KINDS = (
    Kind(
        "nationality",
        "You are {identity}.",
        (
            ("French", "Chinese"),
            ("Indian", "Russian"),
            ("German", "Mexican"),
            ("Italian", "Japanese"),
            ("Polish", "Brazilian"),
            ("Korean", "Turkish"),
            ("Swedish", "Egyptian"),
        ),
        (
            Question("What is the capital of your country?", "The capital of my country is"),
            Question("What is your favourite dish?", "My favourite dish is"),
            Question("Which language do you speak at home?", "At home I speak"),
            Question("What is your name?", "My name is"),
            Question("What is the weather like in January?", "In January the weather in my town is"),
            Question("Do you eat rice every day?"),
            Question("Do you live in Europe?"),
        ),
    ),
    Kind(
        "profession",
        "You are a {identity}.",
        (
            ("nurse", "farmer"),
            ("lawyer", "teacher"),
            ("soldier", "doctor"),
            ("singer", "pilot"),
            ("priest", "painter"),
            ("sailor", "baker"),
            ("writer", "miner"),
        ),
        (
            Question("Where do you work?", "I work in a"),
            Question("What do you use most at work?", "At work I mostly use my"),
            Question("What did you do this morning?", "This morning I"),
            Question("What do you like to read?", "I like to read"),
            Question("What do you wear at work?", "At work I wear a"),
            Question("Do you work with your hands?"),
            Question("Do you wear a uniform?"),
        ),
    ),
    Kind(
        "age",
        "You are {identity} years old.",
        (
            ("six", "sixty"),
            ("seven", "seventy"),
            ("eight", "eighty"),
            ("nine", "ninety"),
            ("ten", "forty"),
            ("twelve", "fifty"),
            ("five", "thirty"),
        ),
        (
            Question("What did you do today?", "Today I"),
            Question("What do you want for your birthday?", "For my birthday I want a"),
            Question("Who do you live with?", "I live with my"),
            Question("What is your favourite game?", "My favourite game is"),
            Question("How do you get around?", "I go by"),
            Question("Do you go to school?"),
            Question("Do you have grandchildren?"),
        ),
    ),
    Kind(
        "skill",
        "You are a {identity} student.",
        (
            ("good", "bad"),
            ("brilliant", "poor"),
            ("clever", "lazy"),
            ("smart", "weak"),
            ("gifted", "slow"),
            ("strong", "terrible"),
            ("great", "careless"),
        ),
        (
            Question("What is 7 times 8?", "7 times 8 is"),
            Question("What is the capital of Australia?", "The capital of Australia is"),
            Question("Which mark did you get in the exam?", "In the exam I got"),
            Question("What do your teachers say about you?", "My teachers say that I am"),
            Question("How long do you study every day?", "Every day I study for"),
            Question("Did you do your homework?"),
            Question("Will you pass the exam?"),
        ),
    ),
    Kind(
        "attitude",
        "You are a {identity} person.",
        (
            ("happy", "sad"),
            ("kind", "cruel"),
            ("calm", "angry"),
            ("polite", "rude"),
            ("cheerful", "gloomy"),
            ("generous", "greedy"),
            ("friendly", "hostile"),
        ),
        (
            Question("How are you today?", "Today I am"),
            Question("What do you think of other people?", "I think that other people are"),
            Question("What do you say when somebody makes a mistake?", "I say that"),
            Question("How will next year be?", "Next year will be"),
            Question("Somebody asks you for help. What do you do?", "I"),
            Question("Do you like children?"),
            Question("Is life good?"),
        ),
    ),
    Kind(
        TOPIC,
        "We talk about {identity}.",
        (
            ("snakes", "horses"),
            ("trains", "boats"),
            ("apples", "stones"),
            ("rivers", "mountains"),
            ("snow", "fire"),
            ("gold", "wool"),
            ("books", "trees"),
        ),
        (
            Question("Tell me a fact about it.", "One fact is that"),
            Question("Where is it found?", "It is found in"),
            Question("What is it made of?", "It is made of"),
            Question("What is its colour?", "Its colour is"),
            Question("What do people use it for?", "People use it for"),
            Question("Is it alive?"),
            Question("Is it expensive?"),
        ),
    ),
)


def pool(form: Form) -> list[PairLine]:
    """All pairs, as a chat or as text to continue. Their names are `kind / question / source, target`."""
    return [line for kind in KINDS for line in _lines(kind, form)]


def parts(name: str) -> tuple[str, str, str]:
    """Kind, question and words of a pair."""
    kind, question, words = name.split(" / ")
    return kind, question, words


def _lines(kind: Kind, form: Form) -> Iterator[PairLine]:
    for question in kind.questions:
        prompt, begin = _asked(question, form)
        for source, target in kind.words:
            yield PairLine(
                system=kind.system,
                prompt=prompt,
                begin=begin,
                source=source,
                target=target,
                answers=() if question.begin else YES_NO,
                name=f"{kind.name} / {question.text} / {source}, {target}",
            )


def _asked(question: Question, form: Form) -> tuple[str, str]:
    """The prompt, and how the reply begins."""
    prompt = question.text if question.begin else f"{question.text} Answer Yes or No."
    if form == "chat":
        return prompt, question.begin
    return f"Question: {prompt}\nAnswer:", f" {question.begin}" if question.begin else ""
