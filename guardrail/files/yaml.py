"""Reads a YAML file as plain data, with the line and column of every key. Knows nothing about policies.

Accepts text, numbers, booleans, null, lists and mappings, with anchors, aliases and `<<`. Duplicate keys,
other tags and recursive aliases are problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from guardrail.errors import PolicyError, Problem

MAX_BYTES = 1_000_000
MAX_VALUES = 100_000
"""Counted after aliases are expanded, so that a small file cannot grow without bound."""

KeyPath: TypeAlias = tuple[str | int, ...]
Place: TypeAlias = tuple[int, int]

_CORE = ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The data of a file, the place of each key (line and column, 1-based), and its YAML problems."""

    data: Mapping[str, object]
    source: str = "policies"
    path: Path | None = None
    places: Mapping[KeyPath, Place] = field(default_factory=dict[KeyPath, Place], repr=False)
    problems: tuple[Problem, ...] = ()

    def locate(self, problem: Problem) -> Problem:
        """The problem with its place in the file, or the place of the nearest enclosing key."""
        if problem.line is not None:
            return problem
        known = (problem.path[:end] for end in range(len(problem.path), -1, -1))
        place = next((self.places[path] for path in known if path in self.places), (None, None))
        return Problem(problem.message, problem.path, *place)

    def error(self, problems: list[Problem]) -> PolicyError:
        """An error with all problems in file order; those without a place come first."""
        located = {self.locate(problem): None for problem in problems}
        return PolicyError(sorted(located, key=lambda p: (p.line or 0, p.column or 0)), self.source)


def read_document(path: str | Path) -> Document:
    """Read a YAML file. Raises PolicyError if it cannot be read as one mapping."""
    source = str(path)
    return parse_document(_text(Path(path), source), source, Path(path))


def parse_document(text: str, source: str = "policies", path: Path | None = None) -> Document:
    """Parse YAML text. Raises PolicyError if it is not one mapping."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    root = _compose(yaml, text, source)
    if root is None:
        raise PolicyError.single("the file is empty; it needs at least `version: 1`", source)
    if root.id != "mapping":
        raise PolicyError(
            [Problem("the file must be a mapping of keys to values", (), *_place(root))], source
        )
    walker = _Walker(yaml.constructor)
    try:
        data = walker.value(root, ())
    except RecursionError as error:
        raise PolicyError.single("nested too deeply", source) from error
    return Document(
        data=data, source=source, path=path, places=walker.places, problems=tuple(walker.problems)
    )


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


def _compose(yaml: Any, text: str, source: str) -> Any:
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return yaml.compose(text)
    except MarkedYAMLError as error:
        raise PolicyError([_marked(error)], source) from error
    except YAMLError as error:
        place = _position(text, getattr(error, "position", None))
        message = str(error).splitlines()[0]
        raise PolicyError([Problem(f"not YAML: {message}", (), *place)], source) from error
    except RecursionError as error:
        raise PolicyError.single("nested too deeply", source) from error


def _marked(error: Any) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = (mark.line + 1, mark.column + 1) if mark else (None, None)
    parts = [str(part) for part in (error.context, error.problem) if part]
    return Problem(f"not YAML: {', '.join(parts)}", (), *place)


def _position(text: str, index: int | None) -> tuple[int | None, int | None]:
    if index is None:
        return None, None
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1


def _place(node: Any) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


class _Walker:
    """Turns YAML nodes into data and records places and problems on the way."""

    def __init__(self, constructor: Any) -> None:
        self.constructor = constructor
        self.places: dict[KeyPath, Place] = {}
        self.problems: list[Problem] = []
        self.open: list[int] = []
        self.count = 0

    def value(self, node: Any, path: KeyPath) -> Any:
        self.places.setdefault(path, _place(node))
        self.count += 1
        if self.count > MAX_VALUES:
            return self._problem("too many values", node, path) if self.count == MAX_VALUES + 1 else None
        if id(node) in self.open:
            return self._problem("the alias contains itself", node, path)
        return self._inside(node, path) if self._allowed(node, path) else None

    def _allowed(self, node: Any, path: KeyPath) -> bool:
        if node.tag.startswith("tag:yaml.org,2002:") and node.tag.rpartition(":")[2] in _CORE:
            return True
        self._problem(f"the tag `{_short(node.tag)}` is not allowed", node, path)
        return False

    def _inside(self, node: Any, path: KeyPath) -> Any:
        if node.id == "scalar":
            return self._scalar(node, path)
        self.open.append(id(node))
        try:
            if node.id == "sequence":
                return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self.open.pop()

    def _scalar(self, node: Any, path: KeyPath) -> Any:
        try:
            return self.constructor.construct_object(node)
        except Exception:  # ruamel's constructors raise whatever int(), float() and a dictionary raise
            return self._problem(f"`{node.value[:40]}` is not a valid {_short(node.tag)}", node, path)

    def _mapping(self, node: Any, path: KeyPath) -> dict[Any, Any]:
        own: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for part in self._parts(value_node, path):
                    merged = {**part, **merged}
                continue
            key = self._key(key_node, path)
            if key in own:
                first = self.places[(*path, key)]
                self._problem(f"duplicate key; the first is at line {first[0]}", key_node, (*path, key))
                continue
            self.places[(*path, key)] = _place(key_node)
            own[key] = self.value(value_node, (*path, key))
        return {**merged, **own}

    def _parts(self, node: Any, path: KeyPath) -> Iterator[dict[Any, Any]]:
        for part in node.value if node.id == "sequence" else [node]:
            if part.id == "mapping":
                yield self.value(part, path)
            else:
                self._problem("`<<` merges mappings only", part, path)

    def _key(self, node: Any, path: KeyPath) -> Any:
        if node.id == "scalar":
            return self._scalar(node, path) if self._allowed(node, path) else node.value
        return self._problem("a key must be text", node, path) or "?"

    def _problem(self, message: str, node: Any, path: KeyPath) -> None:
        self.problems.append(Problem(message, path, *_place(node)))


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")
