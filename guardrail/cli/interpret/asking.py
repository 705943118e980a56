"""Options about multiple-choice items and how they are put to a model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from guardrail.cli.options import DEMO
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.extract.subject import Subject
    from guardrail.interpret.accuracy.items import Item
    from guardrail.interpret.accuracy.prompts import Asker
    from guardrail.interpret.forms import Form


class Forms(StrEnum):
    """How a persona and a question become a prompt."""

    AUTO = "auto"
    CHAT = "chat"
    TEXT = "text"

    def of(self, subject: Subject) -> Form:
        """The form for this model."""
        from guardrail.interpret.forms import form_of

        return form_of(subject) if self is Forms.AUTO else self.value


class Scorings(StrEnum):
    """What the model's answer is."""

    AUTO = "auto"
    LETTERS = "letters"
    TEXT = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingOptions:
    """Items, and how they are asked."""

    data: Annotated[
        list[Path] | None,
        Option(
            help="Multiple-choice items: CSV as MMLU has them, JSON Lines, or a folder of CSV files. Default "
            "for `demo`: built-in items."
        ),
    ] = None
    form: Annotated[
        Forms,
        Option(
            help="chat: the persona is the system message. text: it begins a text to continue, for base "
            "models. auto: text with the chat template builtin:plain, else chat."
        ),
    ] = Forms.AUTO
    scoring: Annotated[
        Scorings,
        Option(
            help="letters: options are listed, the likeliest letter counts. text: only the question is shown "
            "and the likeliest option counts. auto: text for `demo`, else letters."
        ),
    ] = Scorings.AUTO

    def items(self, model: str) -> list[Item]:
        """Raises ConfigError if there are none, or for lines that are not items."""
        from guardrail.interpret.accuracy.builtin import demo_items
        from guardrail.interpret.accuracy.items import read_items

        if self.data:
            return read_items(self.data)
        if model != DEMO:
            raise ConfigError("no items: name a CSV or JSON Lines file of multiple-choice items with --data")
        return demo_items()

    def asker(self, subject: Subject, model: str) -> Asker:
        """What puts items to a model."""
        from guardrail.interpret.accuracy.prompts import Asker

        listed = "text" if model == DEMO else "letters"
        return Asker(
            subject, self.form.of(subject), listed if self.scoring is Scorings.AUTO else self.scoring.value
        )
