"""Turns the parser's nodes into plain data, and notes the places, the problems and what was filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any, TypeAlias

from guardrail.errors import Problem
from guardrail.files.environment import filled
from guardrail.files.json_text import proper
from guardrail.files.problems import KeyPath

Place: TypeAlias = tuple[int, int]
MAX_VALUES = 50_000
"""Counted after aliases are expanded, so that a small file cannot grow without bound."""
_CORE = ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")
_PREFIX = "tag:yaml.org,2002:"


class Walker:
    """Turns YAML nodes into data and records places and problems on the way."""

    def __init__(self, yaml: Any, environment: Mapping[str, str] | None) -> None:
        self.yaml = yaml
        self.environment = environment
        self.written: dict[KeyPath, str] = {}
        self.places: dict[KeyPath, Place] = {}
        self.problems: list[Problem] = []
        self.open: list[int] = []
        self.count = 0

    def value(self, node: Any, path: KeyPath) -> Any:
        self.places.setdefault(path, place(node))
        self.count += 1
        if self.count > MAX_VALUES:
            return self._problem("too many values", node, path) if self.count == MAX_VALUES + 1 else None
        if id(node) in self.open:
            return self._problem("the alias contains itself", node, path)
        return self._inside(node, path) if self._allowed(node, path) else None

    def _allowed(self, node: Any, path: KeyPath) -> bool:
        if node.tag.startswith(_PREFIX) and node.tag.rpartition(":")[2] in _CORE:
            return True
        self._problem(f"the tag `{_short(node.tag)}` is not allowed", node, path)
        return False

    def _inside(self, node: Any, path: KeyPath) -> Any:
        if node.id == "scalar":
            return self._scalar(self._filled(node, path), path)
        self.open.append(id(node))
        try:
            if node.id == "sequence":
                return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self.open.pop()

    def _filled(self, node: Any, path: KeyPath) -> Any:
        """The node with its variables filled in. Plain text is typed as if the value stood there."""
        if self.environment is None or "$" not in node.value:
            return node
        found = copy(node)
        try:
            found.value = filled(node.value, self.environment)
        except ValueError as error:
            self._problem(str(error), node, path)
            return node
        if not node.style and str(node.tag) == _PREFIX + "str":
            found.ctag = self.yaml.resolver.resolve(type(node), found.value, (True, False))
        if found.value != node.value:
            self.written[path] = node.value
        return found

    def _scalar(self, node: Any, path: KeyPath) -> Any:
        try:
            return sound(self.yaml.constructor.construct_object(node))
        except Exception:  # ruamel's constructors raise whatever int(), float() and a dictionary raise
            shown: str = self.written.get(path) or node.value
            return self._problem(f"`{shown[:40]}` is not a valid {_short(node.tag)}", node, path)

    def _mapping(self, node: Any, path: KeyPath) -> dict[Any, Any]:
        own: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _PREFIX + "merge":
                for part in self._parts(value_node, path):
                    merged = {**part, **merged}
            else:
                self._put(own, key_node, value_node, path)
        return {**merged, **own}

    def _put(self, own: dict[Any, Any], key_node: Any, value_node: Any, path: KeyPath) -> None:
        key = self._key(key_node, path)
        if key in own:
            first = self.places[(*path, key)]
            self._problem(f"duplicate key; the first is at line {first[0]}", key_node, (*path, key))
            return
        self.places[(*path, key)] = place(key_node)
        own[key] = self.value(value_node, (*path, key))

    def _parts(self, node: Any, path: KeyPath) -> Iterator[dict[Any, Any]]:
        for part in node.value if node.id == "sequence" else [node]:
            if part.id == "mapping":
                # None if there are too many values, or a recursive alias
                yield self.value(part, path) or {}
            else:
                self._problem("`<<` merges mappings only", part, path)

    def _key(self, node: Any, path: KeyPath) -> Any:
        if node.id == "scalar":
            return self._scalar(node, path) if self._allowed(node, path) else node.value
        return self._problem("a key must be text", node, path) or "?"

    def _problem(self, message: str, node: Any, path: KeyPath) -> None:
        self.problems.append(Problem(message, path, *place(node)))


def _short(tag: str) -> str:
    return tag.replace(_PREFIX, "!!")


def place(node: Any) -> Place:
    """Line and column of a node, from 1."""
    return node.start_mark.line + 1, node.start_mark.column + 1


def sound(value: Any) -> Any:
    """The scalar itself. Raises ValueError for an unpaired surrogate, and for more than 64 bits."""
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise ValueError("a whole number of more than 64 bits")
    return proper(value) if isinstance(value, str) else value
