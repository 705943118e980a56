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


CONTRAST, EVERYDAY = read("contrast.jsonl"), read("everyday.jsonl")
TWINS = list(zip(CONTRAST[::2], CONTRAST[1::2], strict=True))


def test_each_pair_is_a_harmless_prompt_and_its_harmful_twin():
    for safe, unsafe in TWINS:
        assert (safe["pair"], safe["category"]) == (unsafe["pair"], unsafe["category"])
        assert (safe["source"], safe["labels"]) == ("contrast-safe", {"harm": 0})
        assert (unsafe["source"], unsafe["labels"]) == ("contrast-unsafe", {"harm": 1})
    pairs = Counter(row["pair"] for row in CONTRAST)
    assert len(pairs) >= 450
    assert set(pairs.values()) == {2}


def test_twins_are_of_one_length_and_share_words():
    lengths = {0: 0, 1: 0}
    shared = []
    for row in CONTRAST:
        lengths[row["labels"]["harm"]] += len(row["prompt"])
    for safe, unsafe in TWINS:
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
    again = [text for text, count in Counter(texts(CONTRAST)).items() if count > 1]
    assert not again


@pytest.mark.skipif(not XSTEST.exists(), reason="XSTest is not beside this checkout")
def test_no_prompt_is_near_to_one_of_the_held_out_set():
    with XSTEST.open(encoding="utf-8") as file:
        held_out = [words(row["prompt"]) for row in csv.DictReader(file)]
    near = [text for text in texts(CONTRAST + EVERYDAY) if closest(words(text), held_out) >= 0.7]
    assert not near


def closest(text, others):
    return max(similarity(text, other) for other in others)


def words(text):
    return set(re.findall(r"\w+", text.lower()))


def similarity(a, b):
    return len(a & b) / len(a | b)
