"""Damaged and hostile variants of files, for tests that readers raise only errors of ours, and soon."""

import json
import random
import sqlite3
import time
from contextlib import contextmanager

import pytest

from guardrail.errors import GuardrailError

SOON_S = 5.0
"""No small file may take more of a slow machine's time."""
DEEP = "[" * 2000 + "]" * 2000
VALUES = (
    *("null", "true", "-1", "3.5", "1e999", "NaN", "1" * 400, "1" * 5000, "99999999999999999"),
    *('""', '"x"', '"\\ud800"', '"\\u0000"', "[]", "{}", "[[1]]", '{"x": {}}', DEEP),
)
"""JSON to put in the place of any value."""
HERE = "@@here@@"


def paths(value, path=()):
    """The path of every value in JSON data; of a long list only those of the first two."""
    yield path
    items = (
        value.items() if isinstance(value, dict) else enumerate(value[:2] if isinstance(value, list) else ())
    )
    for key, item in items:
        yield from paths(item, (*path, key))


def replaced(data, path, text):
    """The JSON of `data` with `text` in the place of one value."""
    copy = json.loads(json.dumps({"": data}))
    *parents, last = ("", *path)
    holder = copy
    for part in parents:
        holder = holder[part]
    holder[last] = HERE
    return json.dumps(copy[""]).replace(f'"{HERE}"', text)


def variants(data, count=6, seed=0):
    """The JSON of data, with every value replaced in turn by some hostile ones."""
    chance = random.Random(seed)
    return (replaced(data, path, text) for path in paths(data) for text in chance.sample(VALUES, count))


def damaged(content, count, seed=0):
    """Bytes that are cut, overwritten, repeated or padded somewhere."""
    chance = random.Random(seed)
    for _ in range(count):
        start = chance.randrange(len(content) + 1)
        end = min(len(content), start + chance.choice((0, 1, 1, 4, 64)))
        noise = chance.choice((b"", b"\xff", b"\0" * 8, b"\xff" * 8, chance.randbytes(4), content[:64]))
        yield content[:start] if chance.random() < 0.1 else content[:start] + noise + content[end:]


def edit(path, change):
    """Apply a change to the list of lines of a log of either kind."""
    if not path.read_bytes().startswith(b"SQLite"):
        path.write_bytes(b"".join(line + b"\n" for line in change(path.read_bytes().splitlines())))
        return
    with sqlite3.connect(path) as database:
        lines = change([line for (line,) in database.execute("SELECT line FROM events ORDER BY seq")])
        database.execute("DELETE FROM events")
        database.executemany("INSERT INTO events (line) VALUES (?)", [(line,) for line in lines])
    database.close()


@contextmanager
def ours(what):
    """Lets errors of ours pass, and fails for others and for what takes long."""
    start, said = time.thread_time(), ""
    try:
        yield
    except GuardrailError as error:
        said = str(error)
    except BaseException as error:
        pytest.fail(f"{type(error).__name__}: {error} for {what!r:.300}")
    assert len(said) < 100_000
    assert time.thread_time() - start < SOON_S, f"{what!r:.300}"
