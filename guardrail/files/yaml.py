"""Reads a YAML file as plain data, with the line and column of every key. Knows nothing about policies.

Accepts text, numbers, booleans, null, lists and mappings, with anchors, aliases and `<<`. Duplicate keys,
other tags and recursive aliases are problems. Size, depth and the number of values are limited.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardrail.errors import PolicyError, Problem
from guardrail.files.environment import hidden, shown
from guardrail.files.nodes import MAX_VALUES, Place, Walker, place, sound
from guardrail.files.problems import KeyPath, show
from guardrail.files.syntax import problem as syntax_problem

MAX_BYTES = 250_000
"""About two thousand policies."""
MAX_BREAKS = 25_000
"""Commas and ends of lines. Hardly any text has more values than that, and the parser is slow."""
MAX_DEPTH = 50
MAX_PROBLEMS = 100
"""How many problems an error lists; the rest are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The data of a file, the place of each key (line and column, 1-based), and its YAML problems.

    `written` holds the text of each value that the environment filled in; problems show it instead.
    """

    data: Mapping[str, object]
    source: str = "policies"
    path: Path | None = None
    places: Mapping[KeyPath, Place] = field(default_factory=dict[KeyPath, Place], repr=False)
    problems: tuple[Problem, ...] = ()
    written: Mapping[KeyPath, str] = field(default_factory=dict[KeyPath, str], repr=False)

    def locate(self, problem: Problem) -> Problem:
        """The problem with its place in the file, or the place of the nearest enclosing key."""
        if problem.line is not None:
            return problem
        known = (problem.path[:end] for end in range(len(problem.path), -1, -1))
        at = next((self.places[path] for path in known if path in self.places), (None, None))
        return Problem(problem.message, problem.path, *at)

    def error(self, problems: list[Problem]) -> PolicyError:
        """An error with the problems in file order; those without a place come first."""
        located = {self.locate(self._veiled(problem)): None for problem in problems}
        found = sorted(located, key=lambda p: (p.line or 0, p.column or 0))
        more = [Problem(f"and {len(found) - MAX_PROBLEMS} more problems")] if found[MAX_PROBLEMS:] else []
        return PolicyError([*found[:MAX_PROBLEMS], *more], self.source)

    def _veiled(self, problem: Problem) -> Problem:
        """The problem without what the environment holds, which may be a secret."""
        path, message = problem.path, problem.message
        near = [own for own in self.written if own[: len(path)] == path or path[: len(own)] == own]
        whole: dict[str, str] = {}
        words: dict[str, str] = {}
        for own in near and (path, *near):
            value = _at(self.data, own)
            written = _restored(value, own, self.written)
            whole.setdefault(show(value), show(written))
            if own in self.written:
                words.setdefault(str(value), str(written))
        return Problem(_replaced(message, whole, words), path, problem.line, problem.column)


def read_document(path: str | Path) -> Document:
    """Read a YAML file. Raises PolicyError if it cannot be read as one mapping."""
    source = str(path)
    return parse_document(_text(Path(path), source), source, Path(path), os.environ)


def parse_document(
    text: str,
    source: str = "policies",
    path: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Document:
    """Parse YAML text. Raises PolicyError if it is not one mapping.

    `environment` fills in `${NAME}` in values; without one they stay as they are.
    """
    if text.count(",") + text.count("\n") > MAX_BREAKS:
        raise PolicyError.single(f"the file has more than {MAX_BREAKS:,} commas and lines", source)
    yaml = _yaml()
    root = _compose(yaml, text, source)
    if root is None:
        raise PolicyError.single("the file is empty; it needs at least `version: 1`", source)
    if root.id != "mapping":
        raise PolicyError([Problem("the file must be a mapping of keys to values", (), *place(root))], source)
    walker = Walker(yaml, environment)
    data = walker.value(root, ())
    if data is None:
        raise PolicyError(walker.problems, source)
    return Document(
        data=data,
        source=source,
        path=path,
        places=walker.places,
        problems=tuple(walker.problems),
        written=walker.written,
    )


def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = MAX_DEPTH
    yaml.composer.warn_double_anchors = False
    return yaml


def _text(path: Path, source: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise PolicyError.single(f"the file is larger than {MAX_BYTES:,} bytes", source)
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PolicyError.single(f"the file is not UTF-8 text (byte {error.start})", source) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PolicyError.single(f"cannot be read: {reason}", source) from error


def nodes(text: str, source: str) -> Any:
    """The root of the parser's nodes. Raises PolicyError if the text is not YAML."""
    return _compose(_yaml(), text, source)


def _compose(yaml: Any, text: str, source: str) -> Any:
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return _shown(yaml.compose(hidden(text)))
    except MarkedYAMLError as error:
        raise PolicyError([syntax_problem(error, text)], source) from error
    except YAMLError as error:
        at = _position(text, getattr(error, "position", None))
        message = str(error).splitlines()[0]
        raise PolicyError([Problem(f"not YAML: {message}", (), *at)], source) from error
    except Exception as error:  # whatever else the parser stumbles over
        raise PolicyError.single(f"not YAML: {type(error).__name__}", source) from error


def _shown(root: Any) -> Any:
    """The nodes with variables as they were written."""
    left, seen = [root], set[int]()
    while left:
        node = left.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.id == "scalar":
            node.value = shown(node.value)
        elif node.id == "sequence":
            left += node.value
        else:
            left += [part for pair in node.value for part in pair]
    return root


def copied(data: Mapping[str, object], source: str) -> dict[str, Any]:
    """The data as new dicts and lists. Raises PolicyError for what no file may hold."""
    left = iter(range(2 * MAX_VALUES))

    def copy_of(value: Any, path: KeyPath) -> Any:
        if len(path) > MAX_DEPTH or next(left, None) is None:
            raise PolicyError.single("nested too deeply, or too many values", source)
        if isinstance(value, Mapping):
            return {checked(key, path): copy_of(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copy_of(item, (*path, i)) for i, item in enumerate(value)]
        return checked(value, path)

    def checked(value: Any, path: KeyPath) -> Any:
        try:
            return sound(value)
        except ValueError as error:
            raise PolicyError([Problem(str(error), path)], source) from error

    return copy_of(data, ())


def _at(data: Any, path: KeyPath) -> Any:
    """The value at a path; None if there is none, because the path leads to a missing key."""
    for part in path:
        try:
            data = data[part]
        except (LookupError, TypeError):
            return None
    return data


def _restored(value: Any, path: KeyPath, written: Mapping[KeyPath, str]) -> Any:
    """The value as it was written in the file, before the environment was filled in."""
    if path in written:
        return written[path]
    if isinstance(value, Mapping):
        return {key: _restored(item, (*path, key), written) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item, (*path, i), written) for i, item in enumerate(value)]
    return value


def _replaced(text: str, whole: Mapping[str, str], words: Mapping[str, str]) -> str:
    """The text with each key replaced, those of `words` as whole words. What was put in stays as it is."""
    kinds = [(whole, old, re.escape(old)) for old in whole if whole[old] != old]
    kinds += [(words, old, rf"(?<!\w){re.escape(old)}(?!\w)") for old in words if old]
    if not kinds:
        return text
    kinds.sort(key=lambda kind: len(kind[1]), reverse=True)
    found = re.compile("|".join(f"({pattern})" for _, _, pattern in kinds))
    return found.sub(lambda match: kinds[(match.lastindex or 1) - 1][0][match[0]], text)


def _position(text: str, index: int | None) -> tuple[int | None, int | None]:
    if index is None:
        return None, None
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1
