"""Turns pydantic's errors into problems that a person can act on, one per wrong key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import groupby, repeat
from typing import Any, TypeAlias, get_args, get_origin

from pydantic import BaseModel, ValidationError

from guardrail.errors import Problem

KeyPath: TypeAlias = tuple[str | int, ...]
MAX_ERRORS = 200
"""How many errors of one value to put into words: each unknown key is compared with all known ones."""
SHOWN = 60
"""Characters of a value."""

CHOICES: Mapping[str, str] = {
    "threshold": "a score such as 2.0, {fpr: 0.01}, {percentile: 99} or {raw: 12.5}",
    "layer": "a layer number from 1, or `auto`",
    "id": "letters, digits, `_`, `.` and `-`, starting with a letter or digit",
}
"""What to write for keys whose type alone does not explain it."""

_TYPES: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "finite_number": "a finite number",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_SHAPE_ERRORS = frozenset({*_TYPES, "literal_error", "missing", "extra_forbidden"}) - {"finite_number"}


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or None."""
    return next(iter(get_close_matches(name, sorted(set(known)), n=1, cutoff=0.6)), None)


def suggest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` if a known name is close, else the list of known names."""
    names = sorted(set(known))
    close = closest(name, names)
    return f"; did you mean `{close}`?" if close else f"; known: {', '.join(names) or 'none'}"


def validation_problems(
    error: ValidationError, data: object, model: type[BaseModel] | None, path: KeyPath = ()
) -> list[Problem]:
    """The problems in `data`, found at `path` in the file, which did not validate as `model`."""
    errors = [_Error(e, data) for e in error.errors(include_url=False)[:MAX_ERRORS]]
    groups = groupby(errors, key=lambda e: e.union)
    found = [p for _, group in groups for p in _group(list(group), model)]
    misspelt = _misspelt(errors, model)
    return [Problem(p.message, (*path, *p.path)) for p in found if p.path not in misspelt]


def _misspelt(errors: Sequence[_Error], model: type[BaseModel] | None) -> set[KeyPath]:
    """Missing keys that are present under a similar name, which is already reported as unknown."""
    missing = {e.path for e in errors if e.kind == "missing"}
    unknown = [e.path for e in errors if e.kind == "extra_forbidden"]
    meant = {(*path[:-1], closest(str(path[-1]), keys_at(model, path[:-1]))) for path in unknown}
    return {path for path in missing if path in meant}


class _Error:
    """One pydantic error. `path` is its place in the data; `union` the part of it before a union's tags,
    and `whole` the value there."""

    def __init__(self, error: Mapping[str, Any], data: object) -> None:
        self.kind: str = error["type"]
        self.text: str = str(error["msg"]).removeprefix("Value error, ")
        self.context: Mapping[str, Any] = error.get("ctx", {})
        self.value: object = error.get("input")
        self.whole: object = None
        self.tag: str | None = None
        self.union: KeyPath = tuple(error["loc"])
        self.path = self._walk(tuple(error["loc"]), data)

    def _walk(self, location: KeyPath, data: object) -> KeyPath:
        path: KeyPath = ()
        for i, part in enumerate(location):
            last = i == len(location) - 1
            if _has(data, part):
                path, data = (*path, part), data[part]  # type: ignore[index]
            elif last and self.kind in ("missing", "extra_forbidden", "invalid_key"):
                path = (*path, part)
            elif self.tag is None:
                self.tag, self.union, self.whole = str(part), path, data
        return path


def _has(data: object, part: str | int) -> bool:
    if isinstance(data, Mapping):
        return part in data
    return isinstance(data, list) and isinstance(part, int) and part < len(data)


def _group(errors: Sequence[_Error], model: type[BaseModel] | None) -> list[Problem]:
    """The problems at one place. For a union, only those of the branch that was probably meant."""
    if errors[0].tag is None:
        return [Problem(_message(e, model), e.path) for e in errors]
    branches: dict[str | None, list[_Error]] = {}
    for e in errors:
        branches.setdefault(e.tag, []).append(e)
    meant = [b for b in branches.values() if all(_inside(e) for e in b)]
    if len(meant) == 1:
        return [Problem(_message(e, model), e.path) for e in meant[0]]
    return [Problem(_choice(errors), errors[0].union)]


def _inside(error: _Error) -> bool:
    """Whether the shape of the branch fits and only a value in it is wrong."""
    depth = len(error.path) - len(error.union)
    # a key that is missing or unknown, right below the union, may belong to another branch
    deeper = depth > 1 or (depth == 1 and error.kind not in ("missing", "extra_forbidden"))
    return deeper or error.kind not in _SHAPE_ERRORS


def _choice(errors: Sequence[_Error]) -> str:
    value = errors[0].whole
    missing = [str(e.path[-1]) for e in errors if e.kind == "missing"]
    text = CHOICES.get(str(errors[0].union[-1])) or " or ".join(dict.fromkeys(_expected(e) for e in errors))
    keys = [str(key) for key in value] if isinstance(value, Mapping) else []
    close = next((c for key in keys if (c := closest(key, missing))), None)
    return f"must be {text}, not {show(value)}" + (f"; did you mean `{close}`?" if close else "")


def _expected(error: _Error) -> str:
    if error.kind == "literal_error":
        return str(error.context.get("expected", "")).replace("'", "`")
    if error.kind in ("missing", "extra_forbidden"):
        return "a mapping of keys to values"
    return _TYPES.get(error.kind, error.text)


def _message(error: _Error, model: type[BaseModel] | None) -> str:
    kind = error.kind
    if kind == "extra_forbidden":
        return f"unknown key{suggest(str(error.path[-1]), keys_at(model, error.path[:-1]))}"
    if kind == "missing":
        return "is missing"
    if kind == "invalid_key":
        return "a key must be text"
    if kind == "literal_error":
        return _literal(error)
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"must be {words} {error.context[bound]:g}, not {show(error.value)}"
    if kind == "string_pattern_mismatch":
        expected = CHOICES.get(str(error.path[-1])) or f"text that matches {error.context['pattern']}"
        return f"must be {expected}, not {show(error.value)}"
    return f"must be {_TYPES[kind]}, not {show(error.value)}" if kind in _TYPES else error.text


def _literal(error: _Error) -> str:
    expected = str(error.context.get("expected", ""))
    names = re.findall(r"'([^']*)'", expected)
    close = closest(str(error.value), names)
    hint = f"; did you mean `{close}`?" if close else ""
    return f"must be {expected.replace(chr(39), '`')}, not {show(error.value)}{hint}"


def show(value: object) -> str:
    """A value as written in the file, shortened. Looks no further into it than that takes."""
    text = _start(value, SHOWN)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _start(value: object, room: int) -> str:
    """At least the first `room` characters of a value, or all of it."""
    if isinstance(value, Mapping):
        return "{" + _joined((f"{k}: " for k in value), value.values(), room) + "}"
    if isinstance(value, list):
        return "[" + _joined(repeat(""), value, room) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, int) and abs(value) >> 64:
        return "a number of too many digits"
    return f"`{value[:room]}`" if isinstance(value, str) else str(value)


def _joined(heads: Iterable[str], values: Iterable[object], room: int) -> str:
    text = ""
    for head, value in zip(heads, values, strict=False):
        text += (", " if text else "") + head
        if len(text) > room:
            break
        text += _start(value, room - len(text))
    return text


def keys_at(model: type[BaseModel] | None, path: KeyPath) -> list[str]:
    """The keys that the mapping at `path` of such a model may have, whichever branch of a union it is."""
    models, mapped = [model] if model else [], False
    for part in path:
        if isinstance(part, str) and not mapped:
            fields = [field for one in models if (field := one.model_fields.get(part))]
            models = [found for field in fields for found in _models(field.annotation)]
            mapped = any(_maps(field.annotation) for field in fields)
        else:
            # a key of a mapping, or a place in a list
            mapped = False
    return list(dict.fromkeys(name for one in models for name in one.model_fields))


def _maps(annotation: Any) -> bool:
    """Whether values of this type are mappings with keys of their own."""
    return get_origin(annotation) in (Mapping, dict)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models in a type such as `tuple[Policy, ...]` or `Enforce | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models(part)]
