"""One line of JSON from outside, strictly: bytes that are no text, no JSON or no Unicode are told apart."""

from __future__ import annotations

import json
import re
from typing import Any


def decoded(text: bytes) -> Any:
    """JSON of proper Unicode. Raises ValueError that says what is wrong."""
    try:
        return proper(json.loads(text.decode("utf-8")))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def proper(value: Any) -> Any:
    """The value. JSON escapes and odd bytes in arguments can make half a character, which no tokenizer takes.

    Raises ValueError for that.
    """
    if re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False)):
        raise ValueError("not Unicode: half of a surrogate pair")
    return value
