"""Options about multiple-choice items and how they are put to a model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from guardrail.cli.console import note
from guardrail.cli.models import load_subject
from guardrail.cli.options import DEMO, PLAIN, ModelOptions
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

    @property
    def untemplated(self) -> str | None:
        """The chat template of models that have none; None if they have to have one."""
        return None if self is Forms.CHAT else PLAIN

    def load(self, model: ModelOptions) -> Subject:
        """The model. What is unusual about its prompts is said on standard error.

        A model without a chat template continues a text. Raises ModelError if it is to chat.
        """
        from guardrail.interpret.forms import notes

        subject = load_subject(model, untemplated=self.untemplated)
        for line in notes(subject, self.of(subject)):
            note(line)
        return subject

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
            "models. auto: text for a model without a chat template (or with builtin:plain), else chat."
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

    def asker(self, model: ModelOptions) -> Asker:
        """What puts items to a model, which is loaded."""
        from guardrail.interpret.accuracy.prompts import Asker

        subject = self.form.load(model)
        listed = "text" if model.name == DEMO else "letters"
        return Asker(
            subject, self.form.of(subject), listed if self.scoring is Scorings.AUTO else self.scoring.value
        )
