"""A journal's file is the same whether it was written in one go or cut off anywhere and taken up again."""

import json

import pytest

from guardrail.errors import ExtractionError
from guardrail.extract.journal import Journal

RECIPE = {"seed": 1, "what": "test"}


def rows(numbers):
    return [{"row": n, "text": f"reply {n} with ünïcode"} for n in numbers]


def journal(path, recipe=RECIPE, total=10, batch=4):
    return Journal(path, recipe, total, batch)


def written(path):
    journal(path).complete("test", rows, lambda *_: None)
    return path.read_bytes()


def test_rows_come_back_in_their_order(tmp_path):
    written(tmp_path / "a.jsonl")
    made = journal(tmp_path / "a.jsonl")
    assert len(made) == 10
    assert list(made) == rows(range(10))
    assert made[7] == rows([7])[0]


def test_a_file_cut_off_anywhere_is_completed_to_the_same_bytes(tmp_path):
    whole = written(tmp_path / "whole.jsonl")
    for size in [*range(0, len(whole), 11), len(whole) - 1]:
        path = tmp_path / "cut.jsonl"
        path.write_bytes(whole[:size])
        assert written(path) == whole, size


def test_only_whole_batches_are_kept_and_only_what_is_missing_is_computed(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = written(path).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:7]))  # the recipe, one batch of four, half of the next
    asked = []
    made = journal(path)
    assert len(made) == 4
    made.complete("test", lambda numbers: [asked.append(list(numbers)), rows(numbers)][1], lambda *_: None)
    assert asked == [[4, 5, 6, 7], [8, 9]]


def test_what_was_done_is_on_disk_when_a_batch_fails(tmp_path):
    def failing(numbers):
        if 4 in numbers:
            raise RuntimeError("judge down")
        return rows(numbers)

    with pytest.raises(RuntimeError):
        journal(tmp_path / "a.jsonl").complete("test", failing, lambda *_: None)
    assert list(journal(tmp_path / "a.jsonl")) == rows(range(4))


def test_progress_tells_what_an_earlier_run_did(tmp_path):
    path, told = tmp_path / "a.jsonl", []
    path.write_bytes(b"".join(written(path).splitlines(keepends=True)[:5]))
    journal(path).complete("stage", rows, lambda *told_now: told.append(told_now))
    assert told == [("stage", 4, 10), ("stage", 8, 10), ("stage", 10, 10)]


@pytest.mark.parametrize("recipe", [{**RECIPE, "seed": 2}, {"what": "test"}, {**RECIPE, "more": "x" * 99}])
def test_another_recipe_is_refused_by_what_differs(tmp_path, recipe):
    before = written(tmp_path / "a.jsonl")
    with pytest.raises(ExtractionError, match=r"begun with another recipe: (seed|more)"):
        journal(tmp_path / "a.jsonl", recipe)
    assert (tmp_path / "a.jsonl").read_bytes() == before


@pytest.mark.parametrize("text", ["not json\n", '{"a": 1}\n', "[1]\n"])
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(ExtractionError, match="not a file of this kind"):
        journal(path)
    assert path.read_text() == text


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExtractionError, match="file"):
        journal(tmp_path / "file" / "a.jsonl")


def test_the_recipe_is_readable_in_the_file(tmp_path):
    written(tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0]) == {"recipe": RECIPE}
