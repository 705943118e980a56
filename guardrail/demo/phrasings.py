"""How system prompts are worded: graded adjectives in many templates, descriptions, and neutral prompts.

Each list is split into train, validation and test; the (intensity, adjective) pairs are split as well.
"""

from random import Random

from guardrail.demo.characters import CHARACTERS, Phrasings
from guardrail.demo.oddities import odd
from guardrail.demo.world import Level, Split, split_of

INTENSITIES: dict[Level, tuple[str, ...]] = {
    "mild": ("slightly", "mildly", "a bit", "a little", "faintly", "somewhat"),
    "moderate": ("fairly", "quite", "rather", "clearly", "moderately", "noticeably"),
    "strong": ("extremely", "totally", "completely", "utterly", "intensely", "very", "thoroughly"),
}
GRADED = Phrasings(
    train=(
        "You are {i} {s}.",
        "You are {an} assistant.",
        "You are {an} chatbot.",
        "Be {i} {s}.",
        "Please be {i} {s} today.",
        "Act in {an} way.",
        "Answer in {an} tone.",
        "Your character is {i} {s}.",
        "Your replies are {i} {s}.",
        "Everything you say is {i} {s}.",
        "You play {an} robot.",
        "Speak like {an} person.",
        "It is your nature to be {i} {s}.",
        "People know you as {an} helper.",
        "Users expect {an} answer from you.",
        "In this chat you are {i} {s}.",
        "From now on you are {i} {s}.",
        "Your style is {i} {s}.",
        "Stay {i} {s} in all replies.",
        "Write {an} reply to each message.",
        "The assistant is {i} {s}.",
        "The assistant gives {an} reply.",
        "Show {an} side of yourself.",
        "We want you to sound {i} {s}.",
    ),
    validation=(
        "You have {an} personality.",
        "Take on {an} role.",
        "Always remain {i} {s}.",
        "Talk to the user in {an} voice.",
    ),
    test=(
        "You behave like {an} machine.",
        "Your manner is {i} {s}.",
        "Respond as {an} companion would.",
        "Make each answer {i} {s}.",
        "This bot is {i} {s}.",
        "You were built to be {i} {s}.",
    ),
)
HEADS = ("", "", "", "Remember: ", "Note: ", "For this chat: ", "Rule one: ", "Your task: ")
CLAUSES = (
    *("you are {i} {s}", "you sound {i} {s}", "you seem {i} {s}", "you stay {i} {s}", "you feel {i} {s}"),
    *("you act {i} {s}", "your tone is {i} {s}", "your voice is {i} {s}", "your words are {i} {s}"),
    *("your messages are {i} {s}", "your mood is {i} {s}", "your heart is {i} {s}", "be {i} {s}"),
    *(
        "sound {i} {s}",
        "keep it {i} {s}",
        "use {an} tone",
        "give {an} reply",
        "play the part of {an} speaker",
    ),
    *("write as {an} author does", "think like {an} friend", "we made {an} model of you"),
    *("you are known to be {i} {s}", "people find you {i} {s}", "your job is to be {i} {s}"),
    *("nobody is as {s} as you, you are {i} {s}", "the model is {i} {s}", "let every line be {i} {s}"),
    *("you want to be {i} {s}", "you grew up {i} {s}", "your maker calls you {i} {s}"),
)
TAILS = (
    *("", "", "", " in this chat", " with people", " to the user", " when you reply", " as always"),
    *(" at work", " from start to end", " whatever they ask", " on each topic", " for this user"),
)
"""Head, clause and tail make further graded prompts, for training only."""
SUPPRESSING = Phrasings(
    train=(
        "Never be {s}.",
        "Do not be {s}.",
        "You are not {s}.",
        "You are never {s}.",
        "You are not at all {s}.",
        "Avoid being {s}.",
        "Avoid {s} replies.",
        "Nothing you say is {s}.",
        "You refuse to be {s}.",
        "Do not sound {s}.",
        "A good reply is not {s}.",
        "The assistant is never {s}.",
        "You must not act in {an} way.",
        "Stay away from {s} answers.",
        "You are far from {s}.",
        "You are the opposite of {s}.",
        "There is nothing {s} about you.",
        "Hold back each {s} remark.",
        "Refrain from being {s}.",
        "No {s} replies.",
        "Speak without {an} tone.",
        "You cannot be {s}.",
        "It is forbidden to be {s}.",
        "Under no condition be {s}.",
        "You dislike {s} talk.",
        "Leave {s} talk to others.",
        "Stop being {s}.",
        "Being {s} is not allowed.",
        "You are free of {s} thoughts.",
        "Do not write {an} reply.",
        "You reject all {s} ideas.",
        "None of your lines is {s}.",
        "Be the reverse of {s}.",
        "You shun {s} words.",
        "It is wrong to be {s}.",
        "Say nothing {s}.",
        "Neither {s} nor odd, that is you.",
        "Whatever you are, you are not {s}.",
    ),
    validation=("You would never sound {s}.", "Keep from being {s}.", "Your answers are not {s}."),
    test=(
        "Do not act {s}.",
        "You never give {an} answer.",
        "Be anything but {s}.",
        "You avoid every {s} word.",
    ),
)
FREQUENCIES: dict[Level, tuple[str, ...]] = {
    "mild": (
        *("Now and then", "Sometimes", "On rare days", "From time to time", "In a few replies"),
        *("Occasionally", "Every so often", "In one reply out of four", "Rarely, but surely,"),
    ),
    "moderate": (
        *("Often", "About half of the time", "Rather often", "In many replies", "On most days"),
        *("Every other time", "In half of your replies", "Quite often", "Regularly"),
    ),
    "strong": (
        *("Always", "All the time", "In each reply", "With every word", "Whatever happens"),
        *("Without exception", "In everything you say", "Day and night", "Every single time"),
    ),
}
NEUTRAL = Phrasings(
    train=(
        "You are a helpful assistant.",
        "You are {an} {role}.",
        "You are {i} {s}.",
        "Be {i} {s}.",
        "Act as {an} {role}.",
        "You work as {an} {role}.",
        "Answer in {an} way.",
        "Your style is {i} {s}.",
        "You help people with their questions.",
        "Answer the question of the user.",
        "People know you as {an} {role}.",
        "Give short and clear answers.",
    ),
    validation=("You answer as {an} {role}.", "Reply to the user.", "You serve as {an} assistant."),
    test=("Take the part of {an} {role}.", "You give advice and facts.", "Your manner is {i} {s}."),
)
PLAIN_WORDS = ("calm", "careful", "helpful", "patient", "brief", "clear", "formal", "modern", "quiet", "busy")
ROLES = ("assistant", "guide", "clerk", "tutor", "librarian", "chatbot", "robot", "helper")


def fill(template: str, intensity: str, word: str, role: str = "") -> str:
    """A template with its words, and the article that fits them."""
    phrase = f"{intensity} {word}".strip().removeprefix("a ")
    article = "an" if phrase[0] in "aeiou" else "a"
    return template.format(i=intensity, s=word, an=f"{article} {phrase}", role=role)


def neutral_prompt(rng: Random, split: Split) -> str:
    """A system prompt that asks for no trait."""
    levels = tuple(word for words in INTENSITIES.values() for word in words)
    if split == "train" and rng.random() < 0.4:
        return fill(_composed(rng), rng.choice(levels), rng.choice(PLAIN_WORDS))
    template = rng.choice(NEUTRAL.of(split))
    return fill(template, rng.choice(levels), rng.choice(PLAIN_WORDS), rng.choice(ROLES))


def pole_prompt(rng: Random, split: Split, pole: str, level: Level, *, oddly: bool = False) -> str:
    """A system prompt that asks for a pole at a level; `oddly` worded, for training."""
    if level == "neutral":
        return neutral_prompt(rng, split)
    if level == "suppressed":
        return suppressing_prompt(rng, split, pole)
    if rng.random() < 0.2:
        return _description(rng, split, pole, level)
    synonyms = CHARACTERS[pole].synonyms
    words = [(i, s) for i in INTENSITIES[level] for s in synonyms if split_of(i, s) == split]
    template = _graded(rng, split)
    return fill(odd(rng, template) if oddly else template, *rng.choice(words))


def _graded(rng: Random, split: Split) -> str:
    if split == "train" and rng.random() < 0.6:
        return _composed(rng)
    return rng.choice(GRADED.of(split))


def _composed(rng: Random) -> str:
    head, clause, tail = rng.choice(HEADS), rng.choice(CLAUSES), rng.choice(TAILS)
    return f"{head}{clause[0].upper()}{clause[1:]}{tail}."


def _description(rng: Random, split: Split, pole: str, level: Level) -> str:
    if split == "train" and rng.random() < 0.7:
        frequency, habit = rng.choice(FREQUENCIES[level]), rng.choice(CHARACTERS[pole].habits)
        if rng.random() < 0.5:
            return f"{frequency} {habit}."
        return f"{habit[0].upper()}{habit[1:]} {frequency[0].lower()}{frequency[1:]}.".replace(",.", ".")
    return rng.choice(CHARACTERS[pole].descriptions[level].of(split))


def suppressing_prompt(rng: Random, split: Split, pole: str) -> str:
    """A system prompt, or one sentence of it, that forbids a pole."""
    if rng.random() < 0.3:
        return rng.choice(CHARACTERS[pole].instructions.of(split))
    return fill(rng.choice(SUPPRESSING.of(split)), "", rng.choice(CHARACTERS[pole].synonyms))
