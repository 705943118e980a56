"""The prompts written here are well-formed, balanced, in complete pairs, and far from the held-out set."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "real" / "prompts"
XSTEST = Path(__file__).parents[3] / "shared" / "data" / "xstest" / "xstest_prompts.csv"


def read(name):
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def texts(rows):
    return [row["prompt"] if "prompt" in row else row["messages"][-1]["content"] for row in rows]


CONTRAST, EVERYDAY, LATER = read("contrast.jsonl"), read("everyday.jsonl"), read("twins.jsonl")
PAIRED = pytest.mark.parametrize(
    ("rows", "source", "at_least"), [(CONTRAST, "contrast", 450), (LATER, "twins", 200)]
)


def pairs_of(rows):
    return list(zip(rows[::2], rows[1::2], strict=True))


@PAIRED
def test_each_pair_is_a_harmless_prompt_and_its_harmful_twin(rows, source, at_least):
    for safe, unsafe in pairs_of(rows):
        assert (safe["pair"], safe["category"]) == (unsafe["pair"], unsafe["category"])
        assert (safe["source"], safe["labels"]) == (f"{source}-safe", {"harm": 0})
        assert (unsafe["source"], unsafe["labels"]) == (f"{source}-unsafe", {"harm": 1})
    pairs = Counter(row["pair"] for row in rows)
    assert len(pairs) >= at_least
    assert set(pairs.values()) == {2}


@PAIRED
def test_twins_are_of_one_length_and_share_words(rows, source, at_least):
    lengths = {0: 0, 1: 0}
    shared = []
    for row in rows:
        lengths[row["labels"]["harm"]] += len(row["prompt"])
    for safe, unsafe in pairs_of(rows):
        shared.append(similarity(words(safe["prompt"]), words(unsafe["prompt"])))
    assert lengths[1] == pytest.approx(lengths[0], rel=0.1)
    assert sum(shared) / len(shared) > 0.3


def test_categories_are_of_like_size():
    sizes = Counter(row["category"] for row in CONTRAST).values()
    assert min(sizes) >= 40
    assert max(sizes) <= 60


def test_everyday_rows_are_harmless_and_end_with_the_user():
    for row in EVERYDAY:
        assert (row["source"], row["labels"]) == ("everyday", {"harm": 0})
        assert ("prompt" in row) != ("messages" in row)
        assert row.get("messages", [{"role": "user"}])[-1]["role"] == "user"
    roles = Counter(message["role"] for row in EVERYDAY for message in row.get("messages", ()))
    assert len(EVERYDAY) >= 250
    assert roles["system"] >= 30
    assert roles["assistant"] >= 20


def test_no_prompt_stands_twice():
    again = [text for text, count in Counter(texts(CONTRAST + LATER)).items() if count > 1]
    assert not again


@pytest.mark.skipif(not XSTEST.exists(), reason="XSTest is not beside this checkout")
def test_no_prompt_is_near_to_one_of_the_held_out_set():
    with XSTEST.open(encoding="utf-8") as file:
        held_out = [words(row["prompt"]) for row in csv.DictReader(file)]
    near = [text for text in texts(CONTRAST + EVERYDAY + LATER) if closest(words(text), held_out) >= 0.7]
    assert not near


def closest(text, others):
    return max(similarity(text, other) for other in others)


def words(text):
    return set(re.findall(r"\w+", text.lower()))


def similarity(a, b):
    return len(a & b) / len(a | b)
