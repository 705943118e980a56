"""Fills in variables of the environment, written as in compose files.

`${NAME}` is the variable, `${NAME:-default}` the default if it is unset or empty, `$$` a dollar sign.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_USE = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_]\w*)(?P<or>:-(?P<default>[^{}]*))?\}|(?P<wrong>\{[^}]*\}?))",
    re.ASCII,
)

_MARKS = str.maketrans("{}[],", "\uf8f0\uf8f1\uf8f2\uf8f3\uf8f4")
_UNMARKS = {new: old for old, new in _MARKS.items()}
_HIDDEN = re.compile("\\$\uf8f0[^\uf8f1]*\uf8f1")


def hidden(text: str) -> str:
    """As long a text, without the marks of variables, which in YAML end plain text inside `{...}`."""
    return _USE.sub(lambda use: use[0].translate(_MARKS) if use["name"] else use[0], text)


def shown(text: str) -> str:
    """What `hidden` was given."""
    return _HIDDEN.sub(lambda use: use[0].translate(_UNMARKS), text)


def filled(text: str, environment: Mapping[str, str]) -> str:
    """The text with its variables filled in. Raises ValueError for one that is not set or written wrongly.

    What a variable holds is not looked into, and no error repeats it.
    """
    return _USE.sub(lambda use: _value(use, environment), text)


def _value(use: re.Match[str], environment: Mapping[str, str]) -> str:
    if use["dollar"]:
        return "$"
    if use["wrong"]:
        raise ValueError(
            f"`{use[0][:40]}` is no variable; write ${{NAME}} or ${{NAME:-default}}, or $$ for $"
        )
    found = environment.get(use["name"])
    if use["or"]:
        return found or use["default"]
    if found is None:
        raise ValueError(
            f"`{use['name']}` is not set in the environment; {use[0][:-1]}:-...}} gives a default"
        )
    return found
