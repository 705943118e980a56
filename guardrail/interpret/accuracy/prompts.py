"""Items as token ids: what the model has read when it answers, and what each option adds to that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, TypeAlias

from guardrail.errors import ConfigError
from guardrail.evaluation.capability import INSTRUCTION, LETTERS, lettered
from guardrail.extract.subject import Subject
from guardrail.interpret.accuracy.items import Item
from guardrail.interpret.accuracy.personas import Persona
from guardrail.interpret.forms import Form, Ids, chat_ids, text_ids

Scoring: TypeAlias = Literal["letters", "text"]
"""`letters`: options are listed, the likeliest letter is the answer. `text`: only the question is shown, and
the option whose text is likeliest, for its length, is the answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The ids that all answers share, and what each option adds to them."""

    prompt: Ids
    options: tuple[Ids, ...]


@dataclass(frozen=True, slots=True)
class Asker:
    """Puts items to one model."""

    subject: Subject
    form: Form
    scoring: Scoring

    def ask(self, persona: Persona, item: Item) -> Asked:
        """The ids of an item. Raises ConfigError if it is too long, or its letters cannot be told apart."""
        answers = LETTERS[: len(item.options)] if self.scoring == "letters" else item.options
        rows = (
            self._chat(persona, item, answers) if self.form == "chat" else self._text(persona, item, answers)
        )
        if (longest := max(map(len, rows))) > self.subject.longest:
            raise ConfigError(f"a prompt has {longest} tokens; this model takes {self.subject.longest}")
        shared = _shared(rows)
        options = tuple(row[shared:] for row in rows)
        if self.scoring == "letters":
            _check_letters(options)
        return Asked(rows[0][:shared], options)

    def _chat(self, persona: Persona, item: Item, answers: Sequence[str]) -> list[Ids]:
        local = self.subject.local
        instruction = f"\n{INSTRUCTION}" if self.scoring == "letters" else ""
        prompt = chat_ids(self.subject, persona.text, self._question(item) + instruction)
        return [(*prompt, *local.renderer.encode(answer)) for answer in answers]

    def _text(self, persona: Persona, item: Item, answers: Sequence[str]) -> list[Ids]:
        text = f"{persona.text}\n\n" if persona.text else ""
        text += f"Question: {self._question(item)}\nAnswer:"
        return [text_ids(self.subject, f"{text} {one}") for one in answers]

    def _question(self, item: Item) -> str:
        return lettered(item.question, item.options) if self.scoring == "letters" else item.question


def _check_letters(options: Sequence[Sequence[int]]) -> None:
    if len({option[0] for option in options}) < len(options):
        raise ConfigError(
            "this tokenizer encodes two option letters with the same first token; use --scoring text"
        )


def _shared(rows: Sequence[Ids]) -> int:
    """How many ids all rows begin with; each keeps at least one of its own."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return min(sum(1 for _ in columns), min(map(len, rows)) - 1)
