"""What a pack is fitted, calibrated and measured on are different prompts; the card says all numbers."""

import json
from pathlib import Path

import pytest
from packs import card
from worlds import FINGERPRINT, VECTORS

from benchmarks.real.pack_card import LIMITS, limits, text
from benchmarks.real.pack_prompts import parts, write_labelled, write_unlabelled
from benchmarks.real.prompt_files import Prompt
from guardrail.plugins.pack import Number
from guardrail.types import Message

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared prompts are not beside this checkout")
def test_no_prompt_is_in_two_parts():
    found = parts(DATA)
    sides = [found.fit, found.ordinary, found.alike, *found.measured.values()]
    texts = [{prompt.text.lower() for prompt in side} for side in sides]
    assert all(not a & b for i, a in enumerate(texts) for b in texts[:i])
    kinds = {prompt.category for prompt in found.fit if prompt.pair}
    assert not kinds & {prompt.category for prompt in found.alike}
    assert not any(prompt.harm for prompt in (*found.ordinary, *found.alike))
    assert not {"xstest", "alpaca"} & {p.source for side in sides[:3] for p in side}
    assert len(found.alike) * 0.8 >= 99  # or a rate of 1 % could not be kept on them


def test_prompts_are_written_as_the_commands_read_them(tmp_path):
    prompt = Prompt((Message("user", "é?"),), "a", True, pair="p-1", category="c")
    plain = {"messages": [{"role": "user", "content": "é?"}]}
    assert json.loads(write_unlabelled([prompt], tmp_path / "new" / "x.jsonl").read_text("utf-8")) == plain
    assert json.loads(write_labelled([prompt], tmp_path / "x.jsonl").read_text("utf-8")) == {
        **plain,
        "labels": {"harm": 1},
        "source": "a",
        "pair": "p-1",
        "category": "c",
    }


def test_the_card_says_what_was_missed_first():
    numbers = [Number(what="fires on: XSTest, unsafe", value=0.25, low=0.2, high=0.31, n=200)]
    said = limits(numbers)
    assert said == ("It misses 75% of XSTest's unsafe prompts.", *LIMITS)
    written = text(card(FINGERPRINT), VECTORS)
    assert "| AUROC | 0.900 | 0.800 to 0.950 | 100 |" in written
    assert "- English only" in written
