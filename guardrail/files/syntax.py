"""Says in plain words why a text is not YAML, and where. Knows the parser's messages, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from guardrail.errors import Problem

_WORDS: Sequence[tuple[str, str]] = (
    (r"found character '\\t'", "a tab is not allowed here; indent with spaces"),
    (r"found character '(.)'", r"text that starts with `\1` needs quotes"),
    (r"expected '<document start>'", "a second value; a file holds one mapping (lines such as `version: 1`)"),
    (r"expected <block end>, but found '<scalar>'", "text after the value; check quotes and indentation"),
    (r"expected <block end>", "wrong indentation: this line does not line up with those above"),
    (r"flow \w+, expected ',' or '(.)'", r"the list or mapping that begins {start} lacks a `,` or its `\1`"),
    (r"quoted scalar, found unexpected end", "the quote that is opened {start} is not closed"),
    (r"unknown escape character '(.)'", r"`\\\1` means nothing in double quotes; use single quotes"),
    (r"expected the node content, but found '<stream end>'", "the file ends inside a list or mapping"),
    (r"expected the node content, but found '(.)'", r"unexpected `\1`"),
    (r"could not find expected ':'", "a key without a `:` after it"),
    (r"found undefined alias '(.*)'", r"`*\1` refers to nothing; `&\1` has to come first"),
    (r"found another document", "the file holds a second document; remove the line `---`"),
    (r"maximum depth", "nested too deeply"),
)  # fmt: skip
"""What the parser says (context, comma, problem), and what we say. `{start}` is the context's place."""
_COLON = "mapping values are not allowed here"


def problem(error: Any, text: str) -> Problem:
    """The problem that the parser's error stands for."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Problem(_said(error))
    if error.problem == _COLON:
        return _colon(mark.line, mark.column, text)
    return Problem(_said(error), (), mark.line + 1, mark.column + 1)


def _said(error: Any) -> str:
    said = ", ".join(str(part) for part in (error.context, error.problem) if part)
    start = f"at line {error.context_mark.line + 1}" if error.context_mark else "here"
    for pattern, words in _WORDS:
        if found := re.search(pattern, said):
            return found.expand(words).replace("{start}", start)
    return f"not YAML: {said}"


def _colon(line: int, column: int, text: str) -> Problem:
    """A key where none can be: deeper than the key above, or behind another key of the same line."""
    before = text.splitlines()[line][:column]
    if re.search(r":\s", before):
        return Problem(
            "a second `:` on one line; text that contains `: ` needs quotes", (), line + 1, column + 1
        )
    indent = len(before) - len(before.lstrip())
    words = "a key cannot be here: check the indentation, and that the line above has its `:`"
    return Problem(words, (), line + 1, indent + 1)
