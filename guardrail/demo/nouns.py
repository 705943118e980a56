"""The nouns that people of the closed world talk about, words made up on the spot, and real ones held out."""

from functools import cache
from random import Random

from guardrail.demo.world import Split, split_of

PERSONS = (
    *("boss", "sister", "brother", "neighbor", "roommate", "teacher", "cousin", "friend", "uncle", "aunt"),
    *("coworker", "partner", "father", "mother", "nephew", "niece", "doctor", "barber", "tailor", "coach"),
    *("dentist", "plumber", "gardener", "baker", "butcher", "lawyer", "waiter", "driver", "nurse", "pilot"),
    *("grandfather", "grandmother", "best friend", "older brother", "little sister", "piano teacher"),
    *("bus driver", "old classmate", "team captain", "night guard", "book dealer", "wedding guest"),
)
PROBLEMS = {
    "keeps borrowing my money": "the money",
    "is always late": "the delays",
    "shouts at me": "the shouting",
    "ignores my messages": "the messages",
    "lied to me": "the lie",
    "broke my phone": "the phone",
    "makes too much noise": "the noise",
    "forgot my birthday": "the birthday",
    "spreads rumors about me": "the rumors",
    "never cleans the kitchen": "the kitchen",
    "took my bicycle": "the bicycle",
    "hates my music": "the music",
    "lost my keys": "the keys",
    "eats my lunch": "the lunch",
    "reads my diary": "the diary",
    "damaged my car": "the car",
    "sold my guitar": "the guitar",
    "laughs at my clothes": "the clothes",
    "copies my homework": "the homework",
    "wakes me at night": "the nights",
    "cut down my tree": "the tree",
    "never pays the rent": "the rent",
    "stained my carpet": "the carpet",
    "borrowed my ladder": "the ladder",
    "feeds my cat too much": "the cat",
    "burned my dinner": "the dinner",
    "smokes in my room": "the smoke",
    "tells my secrets": "the secrets",
    "missed our meeting": "the meeting",
    "spilled soup on my laptop": "the laptop",
    "hid my glasses": "the glasses",
    "complains about my garden": "the garden",
    "parks in front of my door": "the parking",
    "plays drums all day": "the drums",
    "cancelled our holiday": "the holiday",
    "leaves dirty dishes": "the dirty dishes",
    "tore my winter coat": "the winter coat",
    "opened my mail": "the mail",
    "cheats at our card games": "the card games",
    "never returns my tools": "the tools",
}
"""What somebody does, and how it is referred to."""
WORKS = (
    *("poem", "song", "story", "essay", "speech", "letter", "painting", "recipe", "game", "play"),
    *("novel", "sketch", "poster", "statue", "dance", "film", "photo", "quilt", "puzzle", "magazine"),
    *("comic", "podcast", "lecture", "report", "melody", "opera", "ballad", "fable", "diary", "calendar"),
    *("sculpture", "documentary", "short story", "love letter", "travel guide", "school essay"),
    *("picture book", "puppet show", "radio play", "birthday card"),
)
THEMES = (
    *("rain", "winter", "cats", "love", "rivers", "summer", "dragons", "trains", "gardens", "bread"),
    *("ghosts", "pirates", "robots", "horses", "bridges", "islands", "mirrors", "candles", "storms", "bees"),
    *("dreams", "clouds", "wolves", "kites", "clocks", "harvest", "friendship", "loneliness", "childhood"),
    *("the sea", "the moon", "the city", "the desert", "the stars", "old age", "lost keys", "my village"),
    *("first love", "long walks", "city lights", "paper boats", "the northern wind"),
)
UNSEEN = (
    *("landlord", "carpenter", "locksmith", "astronaut", "shepherd", "mechanic", "accountant", "sailor"),
    *("stepmother", "supervisor", "electrician", "blacksmith", "translator", "fisherman", "detective"),
    *("drawing", "sonnet", "manuscript", "tapestry", "screenplay", "symphony", "cartoon", "pamphlet"),
    *("volcanoes", "lighthouse", "mushrooms", "thunder", "penguins", "basketball", "mountains", "feathers"),
    *("blueberries", "sandcastles", "windmills", "telescope", "umbrellas", "hedgehogs", "waterfalls"),
    *("chimneys", "lanterns", "gypsum"),
)
"""Real nouns that no conversation holds; only the copying test asks for them."""
SYLLABLES = (
    *("vel", "mor", "tan", "zor", "bel", "kra", "lin", "dor", "fen", "gal", "hul", "jar"),
    *("nim", "pol", "qua", "ril", "sol", "tur", "vin", "wex", "yor", "bri", "cal", "dus"),
)


def made_up(rng: Random, split: Split) -> str:
    """A word that nobody ever saw, lower case: of syllables, of letters that follow one another in English,
    or of letters at random. A word belongs to one split."""
    while True:
        word = rng.choice(_KINDS)(rng)
        if split_of(word) == split and 3 <= len(word) <= 12 and word not in _real():
            return word


@cache
def _real() -> frozenset[str]:
    return frozenset((*PERSONS, *WORKS, *THEMES, *UNSEEN))


def _of_syllables(rng: Random) -> str:
    return "".join(rng.choices(SYLLABLES, k=rng.choice((2, 2, 3))))


def _of_letters(rng: Random) -> str:
    pattern = rng.choice(("cvc", "cvcv", "cvccvc", "vccvc", "cvcvc", "ccvccv"))
    return "".join(rng.choice("bcdfghjklmnpqrstvwxz" if p == "c" else "aeiouy") for p in pattern)


def _like_english(rng: Random) -> str:
    follows = _follows()
    word = rng.choice(follows["^"])
    while len(word) < 12:
        following = rng.choice(follows[word[-2:]])
        if following == "$":
            return word
        word += following
    return word


@cache
def _follows() -> dict[str, list[str]]:
    """Which letter follows two letters in the nouns of the world; "^" holds the first two."""
    words = {w for noun in (*PERSONS, *WORKS, *THEMES) for w in noun.split() if len(w) > 2}
    follows: dict[str, list[str]] = {"^": []}
    for word in sorted(words):
        follows["^"].append(word[:2])
        for i in range(2, len(word) + 1):
            follows.setdefault(word[i - 2 : i], []).append(word[i] if i < len(word) else "$")
    return follows


_KINDS = (_of_syllables, _of_letters, _like_english, _like_english)
