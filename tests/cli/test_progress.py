"""What verbs say while they work, where the output is no terminal."""

import re
import time

import pytest

from guardrail.cli import progress


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(progress, "EVERY_S", 0.01)


def lines(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def until(capsys, wanted):
    """Waits for a line, and returns what was said until then."""
    said = []
    for _ in range(1000):
        said += lines(capsys)
        if any(wanted in line for line in said):
            return said
        time.sleep(0.01)
    return pytest.fail(f"{wanted} was never said, only {said}")


def test_what_takes_long_says_what_it_does(capsys):
    with progress.doing("loading x ...") as say:
        assert re.fullmatch(r"loading x \.\.\. \(\d+ s\)", until(capsys, "loading x")[0])
        say("measuring")
        until(capsys, "measuring (")
    lines(capsys)
    time.sleep(0.05)
    assert lines(capsys) == []


def test_counts_and_stages_are_told(capsys):
    with progress.counted("reading", 7) as advance:
        until(capsys, "reading: 0 of 7")
        advance(2)
        advance(3)
        until(capsys, "reading: 5 of 7")
    with progress.staged() as report:
        report("evil: rollouts", 16, 40)
        until(capsys, "evil: rollouts: 16 of 40")


def test_only_the_innermost_of_what_goes_on_speaks(capsys):
    with progress.staged() as report:
        report("prompts", 1, 2)
        until(capsys, "prompts: 1 of 2")
        with progress.doing("loading x ..."):
            until(capsys, "loading x")
            assert not any("prompts" in line for line in [*until(capsys, "loading x")[1:], *lines(capsys)])
        until(capsys, "prompts: 1 of 2")


def test_what_is_quick_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY_S", 60)
    with progress.doing("loading"), progress.counted("reading", 7) as advance:
        advance(7)
    assert lines(capsys) == []
