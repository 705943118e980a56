"""`guardrail chat`: talk to a guarded model. A refused turn is not replayed, so it ends no conversation."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from io import TextIOWrapper
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.cli.console import JsonFlag, ModelName, PoliciesFile, console, print_json
from guardrail.cli.guards import open_guard
from guardrail.cli.verdicts import bars, decision_rows, is_finding, notes, plain, reason, verdict
from guardrail.errors import RequestError
from guardrail.files.records import Json, new_id
from guardrail.types import Message

if TYPE_CHECKING:
    from guardrail import Guard, Reply
    from guardrail.pipeline.request import SamplingOptions

LONG_WORD = 24
COMMANDS = "/quit ends, /reset forgets, /system TEXT sets the system prompt"


@dataclass(kw_only=True)
class Talk:
    """One conversation: what was said, and how it is shown."""

    guard: Guard
    sampling: SamplingOptions
    as_json: bool = False
    show_scores: bool = False
    system: str | None = None
    turns: tuple[Message, ...] = ()
    conversation: str = field(default_factory=new_id)

    def hear(self, line: str) -> bool:
        """One line of the user's; False ends the talk."""
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
        stream = self.guard.stream(messages, conversation=self.conversation, **self.sampling)
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
        from rich.text import Text

        for decision in (
            *reply.earlier,
            reply.decision,
            *([reply.reply_decision] if reply.reply_decision else []),
        ):
            if decision.status != "evaluated" or is_finding(decision) or decision.would_action != "allow":
                console().print(verdict(decision) + Text(f"  {plain(reason(decision))}", "bright_black"))
            for note in notes(decision, self.guard.active.plan.warnings):
                console().print(Text(plain(note), "yellow"))
            if self.show_scores:
                console().print(bars(decision))
        if reply.ticket_id:
            console().print(Text(f"ticket {reply.ticket_id}: guardrail audit pending", "bright_black"))


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("chat")(chat)


def chat(
    model: ModelName = "demo",
    policies: PoliciesFile = None,
    system: Annotated[str | None, typer.Option("--system", help="The system prompt.")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0.0, help="0 is greedy; else the model's own.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Makes sampling repeatable.")] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="The longest reply.")] = 256,
    show_scores: Annotated[bool, typer.Option("--show-scores", help="Show every turn's scores.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Talk to a guarded model; says what the guard decided where it did not simply allow.

    /quit, /reset and /system TEXT are commands. Reads lines from a pipe as well.
    """
    sampling: SamplingOptions = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    with open_guard(model, policies) as guard:
        talk = Talk(guard=guard, sampling=sampling, as_json=as_json, show_scores=show_scores, system=system)
        try:
            if sys.stdin.isatty() and not as_json:
                print(f"{model}, guarded. {COMMANDS}")
            for line in _heard():
                if not talk.hear(line):
                    break
        except KeyboardInterrupt:
            print(file=sys.stderr)


def _wrapped(pieces: Iterable[str]) -> Iterator[str]:
    """Pieces that a terminal does not break inside a word; anywhere else as they come."""
    if not console().is_terminal:
        yield from pieces
        return
    from rich.cells import cell_len

    width, column, word, fresh = console().width, 0, "", False
    for character in chain(chain.from_iterable(pieces), " "):
        word += character
        # scripts without spaces are not held back
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
    """Lines from the terminal, with a prompt and line editing, or from a pipe."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield line.rstrip("\n")
        return
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
