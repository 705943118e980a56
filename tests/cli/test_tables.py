"""Tables on a terminal: no cell is cut, at any width."""

import pytest
from rich.console import Console

from guardrail.cli import console as shown


@pytest.fixture
def narrow(monkeypatch):
    """80 columns, as many terminals have."""
    made = Console(width=80, highlight=False, record=True)
    monkeypatch.setattr(shown, "console", lambda: made)
    return made


def printed(console):
    return console.export_text(clear=False)


def cells(columns, rows):
    return [*columns, *(shown.number(cell) for row in rows for cell in row)]


def test_a_wide_table_comes_in_parts_that_begin_alike(narrow, capsys):
    columns = ("trait", "auto", *map(str, range(1, 31)))
    rows = [("evil", 12, *(0.1234 + i for i in range(30))), ("a-trait", 3, *([11.5] * 30))]
    shown.print_wide(columns, rows, "norms", lead=2)
    text = printed(narrow)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(cell in text for cell in cells(columns, rows))
    assert text.count("evil") == text.count("a-trait") > 1


def test_numbers_with_intervals_are_never_wrapped(narrow, capsys):
    columns = ("case", "guarded / bare", "added ms", "guarded p50/p95/p99", "bare p50/p95/p99", "verdict")
    spans = ("1.012 (0.998-1.025)", "0.12 (0.05-0.20)", "12.01/13.22/15.40", "11.90/13.11/15.02")
    rows = [("allow: first token", *spans, "pass")]
    shown.print_table(columns, rows)
    lines = printed(narrow).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(cell in line for line in lines) for cell in cells(columns, rows))


def test_prose_is_wrapped_and_long_words_go_on_in_the_next_line(narrow, capsys):
    prose, word = "a description of many words " * 6, "x" * 100
    shown.print_table(("trait", "description", "sha256"), [("evil", prose.strip(), word)])
    text = printed(narrow)
    assert "…" not in text
    assert text.count("description") == 7
    assert text.count("x") == 100
    assert max(map(len, text.splitlines())) <= 80


def test_markup_in_a_cell_is_text(narrow, capsys):
    shown.print_table(("a",), [("[bold]x[/]",)])
    assert "[bold]x[/]" in printed(narrow)
