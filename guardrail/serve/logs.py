"""What `guardrail serve` writes to stderr: one line for each event, as JSON or for people.

Nothing that users wrote is in it. Exceptions are logged as class and place. What they say may quote a prompt.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from guardrail.errors import located

LogFormat: TypeAlias = Literal["text", "json"]
LOGGERS = ("guardrail", "uvicorn")
FIELDS = "guardrail_fields"
"""The attribute of a log record that holds its fields."""


class JsonLines(logging.Formatter):
    """One JSON object on each line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if (error := _error(record)) is not None:
            line["error"] = error
        return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


class Lines(logging.Formatter):
    """For people: time, level unless it is usual, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = datetime.fromtimestamp(record.created).isoformat(" ", timespec="seconds")
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        error = f" ({found})" if (found := _error(record)) else ""
        return f"{at} {level}{record.getMessage()}{fields}{error}".replace("\n", " | ")


FORMATTERS: Mapping[LogFormat, type[logging.Formatter]] = {"text": Lines, "json": JsonLines}


@contextmanager
def logging_to_stderr(form: LogFormat) -> Generator[None]:
    """Write what guardrail and uvicorn log in this form, instead of what they would write."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATTERS[form]())
    before = [(log := logging.getLogger(name), log.handlers, log.level, log.propagate) for name in LOGGERS]
    for log, *_ in before:
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.INFO if log.name == "guardrail" else logging.WARNING)
    try:
        yield
    finally:
        for log, handlers, level, propagate in before:
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(level)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    return getattr(record, FIELDS, {})


def _error(record: logging.LogRecord) -> str | None:
    error = record.exc_info[1] if record.exc_info else None
    return None if error is None else located(error)
