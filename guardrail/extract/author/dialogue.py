"""Writes a trait definition from a sentence: a model writes, we check, it corrects, we check again.

A definition that is still wrong after the last round is refused with all its problems.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from guardrail.endpoint.client import Endpoint
from guardrail.endpoint.messages import ChatAnswer, ChatRequest
from guardrail.errors import Problem, TraitError
from guardrail.extract.author.answer import read_definition
from guardrail.extract.author.prompt import first_prompt, repair_prompt
from guardrail.traits import TraitDefinition, dump_definition, parse_definition
from guardrail.traits.checks import NAME, NAME_IN_WORDS, complete
from guardrail.types import Message

MAX_TOKENS = 16_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Commission:
    """What to write, which model writes it, and how many rounds it gets."""

    name: str
    description: str
    model: str
    language: str | None = None
    rounds: int = 3


def write_definition(endpoint: Endpoint, commission: Commission) -> TraitDefinition:
    """A definition that passes every check.

    Raises TraitError with the problems of the last answer; EndpointError if there is no answer.
    """
    name, description = commission.name, commission.description
    messages = (Message("user", first_prompt(name, description, commission.language)),)
    problems: list[Problem] = []
    for _ in range(commission.rounds):
        answer = endpoint.complete(_request(commission, messages))
        model, problems = read_definition(answer.text, name, description)
        if model is not None and not problems:
            return _finished(complete(model, ""))
        problems = [*_cut_off(answer), *problems]
        said = Message("assistant", answer.text or "(nothing)")
        messages = (*messages[:1], said, Message("user", repair_prompt(problems)))
    rounds = f"{commission.rounds} round{'s' * (commission.rounds > 1)}"
    raise TraitError(problems, f"the answer of {commission.model} after {rounds}")


def store_definition(definition: TraitDefinition, path: Path, origin: str) -> TraitDefinition:
    """Write a YAML file with a first comment on its origin; returns the definition as read back.

    Never replaces a file: raises TraitError.
    """
    text = f"# {' '.join(origin.split())}\n{dump_definition(definition)}"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        # a link, unlike a rename, fails if the name is taken
        os.link(temporary, path)
    except FileExistsError as error:
        raise _exists(path) from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    return parse_definition(text, str(path))


def check_commission(commission: Commission, path: Path) -> None:
    """Raises TraitError, before asking a model, for a request that would be refused in the end."""
    if path.exists() or path.is_symlink():
        raise _exists(path)
    if re.fullmatch(NAME, commission.name) is None:
        raise TraitError.single(f"the name must be {NAME_IN_WORDS}", commission.name)
    if not commission.description.strip():
        raise TraitError.single("the description is empty", commission.name)


def _exists(path: Path) -> TraitError:
    return TraitError.single("already exists and is never overwritten", str(path))


def _request(commission: Commission, messages: tuple[Message, ...]) -> ChatRequest:
    return ChatRequest(model=commission.model, messages=messages, max_tokens=MAX_TOKENS, temperature=1.0)


def _finished(definition: TraitDefinition) -> TraitDefinition:
    text = dump_definition(definition)
    return replace(definition, sha256=hashlib.sha256(text.encode()).hexdigest())


def _cut_off(answer: ChatAnswer) -> list[Problem]:
    return [] if answer.whole else [Problem("the answer was cut off; write shorter texts")]
