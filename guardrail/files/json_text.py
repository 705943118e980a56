"""Reads JSON that anybody may have written: limits first, and ValueError for whatever is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")
MAX_BYTES = 1 << 30
MAX_DEPTH = 50
MAX_DIGITS = 19
"""Of whole numbers. Longer ones do not fit into 64 bits, and more than 308 do not fit into a float."""
SHOWN = 3
"""How many problems of one value to name; the rest are only counted."""
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_OTHER = bytes(set(range(256)) - set(b"[]{}"))
_NOT_BEFORE = bytes(set(range(256)) - set(b",[{"))
"""Whatever does not begin a value or stand before one."""
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_ESCAPED = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CHOICE = re.compile(r"[\[(]|^(bool|float|int|constrained-\w+)$")
"""Parts of a pydantic location that name a branch of a union, not a key."""


def read(path: Path, limit: int = MAX_BYTES) -> Any:
    """The JSON in a file. Raises ValueError with the reason for a file that cannot be read."""
    return decoded(content(path, limit))


def content(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a file. Raises ValueError if it cannot be read, or is larger than `limit`."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise ValueError(f"larger than {limit:,} bytes")
    return data


Pairs: TypeAlias = Callable[[list[tuple[str, Any]]], Any]


def decoded(text: bytes, pairs: Pairs | None = None, most: int | None = None) -> Any:
    """The parsed JSON. Raises ValueError for other bytes, deep nesting, long numbers and invalid Unicode.

    `pairs` makes an object of its keys and values, as they were written. There may be `most` values.
    """
    structure = _STRING.sub(b"", text)
    if most is not None and len(structure.translate(None, _NOT_BEFORE)) > most:
        raise ValueError(f"more than {most:,} values")
    if _depth(structure) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    try:
        value = json.loads(text.decode("utf-8-sig"), parse_int=_integer, object_pairs_hook=pairs)
        return proper(value) if _ESCAPED.search(text) else value
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"not JSON: {error.msg} ({line}column {error.colno})") from error


def validated(kind: type[T], value: object) -> T:
    """The value as this type. Raises ValueError with its first problems."""
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ValueError("; ".join(map(described, found[:SHOWN])) + more) from error


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    # building one takes milliseconds, and policies are reloaded while the guard runs
    return TypeAdapter(kind)


def described(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors: the key, what is wrong, and the value."""
    key = ".".join(str(part) for part in error["loc"] if not _CHOICE.search(str(part)))
    return f"`{key}`: {error['msg'].lower()}, not {_short(error['input'])}"


def proper(value: Any) -> Any:
    """The value itself. Raises ValueError if it contains an unpaired surrogate, which no tokenizer accepts.

    JSON escapes and odd bytes in command line arguments can produce one.
    """
    if _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError("not valid Unicode: the text contains an unpaired surrogate")
    return value


def _depth(structure: bytes) -> int:
    """How deeply lists and objects are nested, without parsing them."""
    brackets = structure.translate(None, _OTHER)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def _integer(digits: str) -> int:
    if (count := len(digits.removeprefix("-"))) > MAX_DIGITS:
        raise ValueError(f"a whole number of {count} digits is too long")
    return int(digits)


def _short(value: object) -> str:
    if isinstance(value, Mapping | list | tuple):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    try:
        return json.dumps(value, ensure_ascii=False)[:60]
    except (TypeError, ValueError):
        return type(value).__name__
