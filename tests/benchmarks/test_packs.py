"""What a pack is fitted, calibrated and measured on are different prompts; the card says all numbers."""

import json
from pathlib import Path

import pytest
from packs import card
from worlds import FINGERPRINT, VECTORS

from benchmarks.real.models import QWEN_15B
from benchmarks.real.pack_card import Words, text
from benchmarks.real.pack_contents import number
from benchmarks.real.pack_harm import Harm
from benchmarks.real.pack_personas import ASKED, KNOWN, OPPOSITE, Persona
from benchmarks.real.pack_prompts import parts, write_labelled, write_unlabelled
from benchmarks.real.persona_vectors import definition
from benchmarks.real.prompt_files import Prompt
from guardrail.plugins.pack import Number
from guardrail.statistics.intervals import Estimate
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


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared prompts are not beside this checkout")
def test_a_persona_is_measured_on_what_was_neither_extracted_from_nor_calibrated_on(tmp_path):
    persona = Persona(QWEN_15B, "optimism")
    _, benign, *_ = persona.calibrated_on(DATA, tmp_path)
    lines = benign.read_text(encoding="utf-8").splitlines()
    calibrated = [json.loads(line)["messages"][-1]["content"] for line in lines]
    sets = persona.measured_on(DATA)
    questions = {prompt.text for name in sets if name != "Alpaca, ordinary" for prompt in sets[name]}
    known = definition("optimism")
    assert len(questions) >= 8
    assert not questions & {*known.extraction, *known.evaluation}
    assert not {prompt.text for own in sets.values() for prompt in own} & set(calibrated)
    systems = {
        name: {prompt.messages[0].content for prompt in sets[name]} for name in (ASKED, OPPOSITE, KNOWN)
    }
    assert not systems[KNOWN] & (systems[ASKED] | systems[OPPOSITE])
    assert len(calibrated) * 0.7 >= 99  # or a rate of 1 % could not be kept


def test_a_harm_card_says_what_was_missed_first():
    numbers = [Number(what="fires on: XSTest, unsafe", value=0.25, low=0.2, high=0.31, n=200)]
    assert Harm().misses(numbers) == ["It misses 75% of XSTest's unsafe prompts."]


def test_a_persona_card_says_what_is_missed_and_what_may_be_chance():
    persona = Persona(QWEN_15B, "optimism")
    good, bad = persona.pairs
    numbers = [number(good, Estimate(0.9, 0.8, 0.95), 24), number(bad, Estimate(0.6, 0.45, 0.75), 24)]
    numbers.append(number(f"fires on: {ASKED}", Estimate(0.25, 0.1, 0.4), 24))
    missed, chance = persona.misses(numbers)
    assert missed == f"It misses 75% of the prompts that {ASKED}."
    assert chance.startswith(f"{bad}: 0.60 (0.45 to 0.75), no better than chance.")


def test_the_text_of_a_card_has_numbers_limits_and_words():
    written = text(card(FINGERPRINT), VECTORS, Words(origin="from here", measured="so", limits=()))
    assert "from here" in written
    assert "| AUROC | 0.900 | 0.800 to 0.950 | 100 |" in written
    assert "- English only" in written
