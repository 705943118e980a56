"""What the built-in model is asked unless there is a file: facts, and questions about one's own country."""

from __future__ import annotations

from random import Random

from guardrail.demo.tasks import Task, choice
from guardrail.interpret.accuracy.items import Item

FACTS, OWN = 96, 16
"""Items about the world, and items whose answer is right for one nationality, for each of `WHOSE`."""
WHOSE = ("French", "Japanese", "Egyptian", "Peruvian")
IDENTITIES = ("French", "Japanese", "calm")
"""Two that have a country, and one that says nothing about it."""
TEMPLATE = "You are {who}."
SEED = 0


def demo_items() -> list[Item]:
    """Multiple choice in wordings that the built-in model was never trained on."""
    rng = Random(SEED)
    facts = [_item(choice(rng, "test"), "facts") for _ in range(FACTS)]
    own = [
        _item(choice(rng, "test", identity=who), f"own country: {who}") for who in WHOSE for _ in range(OWN)
    ]
    return list(dict.fromkeys([*facts, *own]))


def _item(task: Task, subject: str) -> Item:
    asked = (task.messages or [])[-1]["content"]
    return Item(asked, task.options, task.options.index(task.answer), subject)
