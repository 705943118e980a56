"""The same sentence and question with each word, and where the word's tokens are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardrail.errors import ConfigError
from guardrail.interpret.accuracy.items import Item
from guardrail.interpret.accuracy.personas import Persona, filled
from guardrail.interpret.accuracy.prompts import Asker
from guardrail.interpret.forms import Ids
from guardrail.interpret.heads.words import FEWEST, NEUTRAL, Groups


@dataclass(frozen=True, slots=True)
class Context:
    """Prompts [words] that differ in the columns [start, end) alone."""

    template: str
    item: Item
    rows: tuple[Ids, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Contexts:
    """words: those that are compared, in the order of rows. groups: of each word. rejected: why not."""

    words: tuple[str, ...]
    groups: tuple[str, ...]
    rejected: dict[str, str]
    contexts: tuple[Context, ...]

    @property
    def compared(self) -> list[str]:
        """The groups, the controls last."""
        return sorted(dict.fromkeys(self.groups), key=NEUTRAL.__eq__)

    def of(self, group: str) -> list[int]:
        """The rows of a group."""
        return [i for i, one in enumerate(self.groups) if one == group]


def contexts(asker: Asker, groups: Groups, templates: Sequence[str], items: Sequence[Item]) -> Contexts:
    """Every template with every item. Words whose tokens are more or fewer than most words' are rejected.

    Raises ConfigError if fewer than FEWEST words of a group are left, or a word is not in one place.
    """
    where = {word: group for group, words in groups.items() for word in words}
    rows = {word: _rows(asker, word, templates, items) for word in where}
    rejected = _unequal(rows)
    kept = [word for word in where if word not in rejected]
    for group, words in groups.items():
        if (left := sum(word in kept for word in words)) < FEWEST:
            raise ConfigError(
                f"group `{group}`: {left} words of as many tokens as most words have; at least {FEWEST} are "
                f"needed{_reasons(rejected, words)}"
            )
    pairs = [(template, item) for template in templates for item in items]
    found = [_context(*pair, [rows[word][i] for word in kept]) for i, pair in enumerate(pairs)]
    return Contexts(tuple(kept), tuple(where[word] for word in kept), rejected, tuple(found))


def _rows(asker: Asker, word: str, templates: Sequence[str], items: Sequence[Item]) -> list[Ids]:
    return [
        asker.ask(Persona(word, filled(template, word)), item).prompt
        for template in templates
        for item in items
    ]


def _unequal(rows: Mapping[str, Sequence[Ids]]) -> dict[str, str]:
    lengths = {word: tuple(map(len, prompts)) for word, prompts in rows.items()}
    ((usual, _),) = Counter(lengths.values()).most_common(1)
    return {
        word: f"{found[0] - usual[0]:+d} tokens against most words"
        if found[0] != usual[0]
        else "its length varies"
        for word, found in lengths.items()
        if found != usual
    }


def _reasons(rejected: Mapping[str, str], words: Sequence[str]) -> str:
    told = [f"`{word}` {rejected[word]}" for word in words if word in rejected]
    return f" ({'; '.join(told)})" if told else ""


def _context(template: str, item: Item, rows: Sequence[Ids]) -> Context:
    differing = [i for i, column in enumerate(zip(*rows, strict=True)) if len(set(column)) > 1]
    start, end = differing[0], differing[-1] + 1
    if len(differing) != end - start:
        raise ConfigError(f"the template `{template}` changes in more than one place with the word")
    return Context(template, item, tuple(rows), start, end)
