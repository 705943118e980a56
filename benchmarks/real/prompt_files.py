"""Labelled prompts of a folder of shared data, which this project does not ship."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardrail.types import Message

DEFAULT = Path(__file__).parents[2] / "shared" / "data"
SEED = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, where it is from, and whether it asks for harm.

    pair: what its look-alike has too. category: the kind, where its file names one.
    """

    messages: tuple[Message, ...]
    source: str
    harm: bool
    pair: str = ""
    category: str = ""

    @property
    def text(self) -> str:
        """The last turn."""
        return self.messages[-1].content


def takes_data(parser: argparse.ArgumentParser) -> None:
    """Add the option for the folder."""
    parser.add_argument("--data", type=Path, default=DEFAULT, help="folder with prompts/ and xstest/")


def read(path: Path, label: str = "harm") -> list[Prompt]:
    """Distinct prompts of a JSON Lines file, in its order; `harm` is what its label says.

    Exits with a message if the file is not there.
    """
    if not path.is_file():
        raise SystemExit(f"{path} is not here; name the folder of shared data with --data")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({prompt.messages: prompt for prompt in (_prompt(row, label) for row in rows)}.values())


def _prompt(row: Mapping[str, Any], label: str) -> Prompt:
    turns: list[Any] = row.get("messages") or [{"role": "user", "content": row["prompt"]}]
    messages = tuple(Message(**turn) for turn in turns)
    named = (row.get("pair", ""), row.get("category", ""))
    return Prompt(messages, row["source"], bool(row["labels"][label]), *named)


def shuffled(prompts: list[Prompt], longest: int = 300) -> list[Prompt]:
    """Those of at most so many characters, in an order that depends on nothing but the prompts."""
    short = [prompt for prompt in prompts if len(prompt.text) <= longest]
    random.Random(SEED).shuffle(short)
    return short
