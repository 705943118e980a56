"""`guardrail chat`: talk to a guarded model. A refused turn is not replayed, so the conversation goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from io import TextIOWrapper
from itertools import chain
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer
from rich.cells import cell_len
from rich.text import Text
from typer import Option

from guardrail.cli.console import console, print_json
from guardrail.cli.models import WATCH_S, open_guard
from guardrail.cli.options import ModelOptions, OutputOptions, PoliciesOption, SystemOption, takes_options
from guardrail.cli.panels import Panel
from guardrail.cli.prompts import argument
from guardrail.cli.verdicts import bars, is_finding, notes, plain, reason, verdict
from guardrail.errors import RequestError
from guardrail.files.decision_rows import decision_rows
from guardrail.files.records import Json, new_id
from guardrail.plugins.hookspecs import hookimpl
from guardrail.types import Message

if TYPE_CHECKING:
    from guardrail import Guard, Reply
    from guardrail.pipeline.options import SamplingOptions

LONG_WORD = 24
COMMANDS = "/quit ends, /reset forgets, /system TEXT sets the system prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkOptions:
    """How the model answers, and what is shown."""

    panel: ClassVar = Panel.REPLIES

    temperature: Annotated[
        float | None, Option(min=0.0, help="Sampling temperature. 0 is greedy. Default: the model's own.")
    ] = None
    seed: Annotated[int | None, Option(help="Seed that makes sampling repeatable.")] = None
    max_new_tokens: Annotated[int, Option(min=1, help="Maximum tokens per reply.")] = 256
    show_scores: Annotated[bool, Option("--show-scores", help="Show the scores of every turn.")] = False

    @property
    def sampling(self) -> SamplingOptions:
        """What generation is given."""
        return {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature, "seed": self.seed}


@dataclass(kw_only=True)
class Talk:
    """One conversation, and how it is shown."""

    guard: Guard
    options: TalkOptions
    as_json: bool = False
    system: str | None = None
    turns: tuple[Message, ...] = ()
    conversation: str = field(default_factory=new_id)

    def listen(self) -> None:
        """Read lines until the user ends the chat, or interrupts it."""
        try:
            for line in _heard():
                if not self.hear(line):
                    break
        except KeyboardInterrupt:
            print(file=sys.stderr)

    def hear(self, line: str) -> bool:
        """Handle one line from the user. Returns False to end the talk."""
        command, _, rest = line.strip().partition(" ")
        if command == "/quit":
            return False
        if command == "/reset":
            self.turns, self.conversation = (), new_id()
        elif command == "/system":
            self.system = rest.strip() or None
        elif command.startswith("/"):
            print(f"unknown command {plain(command)}: {COMMANDS}", file=sys.stderr)
        elif command:
            self._answer(line)
        return True

    def _answer(self, text: str) -> None:
        first = (Message("system", self.system),) if self.system else ()
        try:
            reply = self._reply((*first, *self.turns, Message("user", text)))
        except RequestError as error:
            self._print_error(text, error)
            return
        self.turns = tuple(turn for turn in reply.history if turn.role != "system")
        if self.as_json:
            print_json(_row(text, reply))
        else:
            self._print_decision(reply)
        sys.stdout.flush()

    def _reply(self, messages: tuple[Message, ...]) -> Reply:
        stream = self.guard.stream(messages, conversation=self.conversation, **self.options.sampling)
        try:
            for piece in _wrapped(map(plain, stream)):
                if not self.as_json:
                    print(piece, end="", flush=True)
        finally:
            stream.close()
            if not self.as_json:
                print()
        assert stream.reply is not None
        return stream.reply

    def _print_error(self, text: str, error: RequestError) -> None:
        if self.as_json:
            print_json({"user": text, "reply": None, "error": str(error)})
        else:
            print(f"error: {plain(str(error))}", file=sys.stderr)

    def _print_decision(self, reply: Reply) -> None:
        on_reply = [reply.reply_decision] if reply.reply_decision else []
        for decision in (*reply.earlier, reply.decision, *on_reply):
            if decision.status != "evaluated" or is_finding(decision) or decision.would_action != "allow":
                console().print(verdict(decision) + Text(f"  {plain(reason(decision))}", "bright_black"))
            for note in notes(decision, self.guard.active.plan.warnings):
                console().print(Text(plain(note), "yellow"))
            if self.options.show_scores:
                console().print(bars(decision))
        if reply.ticket_id:
            console().print(Text(f"ticket {reply.ticket_id}: guardrail audit pending", "bright_black"))


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("chat")(chat)


@takes_options
def chat(
    model: ModelOptions,
    policies: PoliciesOption,
    given: SystemOption,
    options: TalkOptions,
    output: OutputOptions,
) -> None:
    """Talk to a guarded model. Shows what the guard decided, unless it simply allowed the prompt.

    A changed policy file takes effect while the chat runs. /quit, /reset and /system TEXT are commands. Lines
    can also come from a pipe.
    """
    system = None if given.system is None else argument(given.system)
    with open_guard(model, policies.policies, watch_s=WATCH_S) as guard:
        talk = Talk(guard=guard, options=options, as_json=output.as_json, system=system)
        if sys.stdin.isatty() and not output.as_json:
            print(f"{model.name}, guarded. {COMMANDS}")
        talk.listen()


def _wrapped(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces, with line breaks between words on a terminal."""
    if not console().is_terminal:
        yield from pieces
        return
    width, column, word, fresh = console().width, 0, "", False
    for character in chain(chain.from_iterable(pieces), " "):
        word += character
        # do not hold back scripts without spaces
        if character.isspace() or len(word) == LONG_WORD:
            size = cell_len(word.rstrip())
            if fresh and column and column + size > width:
                yield "\n"
                column = 0
            yield word
            fresh = character.isspace()
            column = 0 if character == "\n" else (column + size + fresh) % width
            word = ""


def _heard() -> Iterator[str]:
    """Lines from the terminal (with a prompt and line editing) or from a pipe."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if sys.stdin.isatty():
        yield from _typed()
    else:
        yield from (line.rstrip("\n") for line in sys.stdin)


def _typed() -> Iterator[str]:
    with suppress(ImportError):
        # gives `input` line editing and a history
        import_module("readline")
    while True:
        try:
            yield input("you> ")
        except EOFError:
            print()
            return


def _row(text: str, reply: Reply) -> Json:
    """One turn for scripts: the decision as `check --json` has it, and the reply."""
    *earlier, last = decision_rows(reply)
    return {
        "user": text,
        "reply": reply.text,
        **last,
        "earlier": earlier,
        "ticket_id": reply.ticket_id,
        "new_tokens": reply.new_tokens,
        "steered_passes": reply.steered_passes,
    }
