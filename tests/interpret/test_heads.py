"""`guardrail interpret heads`: words in one place, heads found where they were planted, heads scaled."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TOKENIZER
from transformers import AutoConfig, AutoModelForCausalLM

from guardrail.cli import run
from guardrail.engines.transformers.activations import Site
from guardrail.errors import ConfigError
from guardrail.extract.subject import Subject
from guardrail.interpret.accuracy.items import Item
from guardrail.interpret.accuracy.prompts import Asker
from guardrail.interpret.heads.attending import attending
from guardrail.interpret.heads.contexts import contexts
from guardrail.interpret.heads.results import Head
from guardrail.interpret.heads.scaling import ablation, scaled
from guardrail.interpret.heads.words import DEMO_WORDS, NEUTRAL, WORDS, read_words
from guardrail.report.heads import page
from guardrail.testing import tiny_model

ITEMS = [
    Item("What is wet?", ("sand", "water"), 1, "things"),
    Item("Who barks?", ("a cat", "a dog"), 1, "things"),
    Item("Is it?", ("yes", "no"), 0, "things"),
]
# one token each, because the tiny tokenizer knows bytes; no item or template has these capitals
GROUPS = {"capital": tuple("CDEFGHJKLM"), NEUTRAL: tuple("cdefghjklm")}
TEMPLATES = ("You are {who}.",)


@pytest.fixture(scope="module")
def asker():
    return Asker(Subject(tiny_model(), TOKENIZER), "chat", "letters")


@pytest.fixture(scope="module")
def given(asker):
    return contexts(asker, GROUPS, TEMPLATES, ITEMS)


def planted(head, layer=2):
    """A model in which one head looks from everywhere at tokens of capital letters."""
    model = tiny_model("gpt2", layers=3)
    capitals = TOKENIZER("".join(GROUPS["capital"]))["input_ids"]
    direction = torch.zeros(32)
    direction[0] = 1.0
    with torch.no_grad():
        # nobody writes to the first direction but the embeddings of capital letters
        model.transformer.wte.weight[:, 0] = 0.0
        model.transformer.wpe.weight[:, 0] = 0.0
        model.transformer.wte.weight[capitals, 0] = 0.4
        for block in model.transformer.h:
            # and no other head reads it
            block.attn.c_attn.weight[0] = 0.0
            for projection in (block.attn.c_proj, block.mlp.c_proj):
                projection.weight[:, 0] = 0.0
                projection.bias[0] = 0.0
        attention = model.transformer.h[layer - 1].attn.c_attn
        own = slice(8 * head, 8 * head + 8)
        attention.weight[:, :32][:, own] = 0.0
        attention.bias[:32][own] = 40.0
        attention.weight[:, 32:64][:, own] = direction[:, None]
        attention.bias[32:64][own] = 0.0
    return model


def test_words_differ_in_one_place_alone(given):
    for context in given.contexts:
        texts = [TOKENIZER.decode(ids[context.start : context.end]) for ids in context.rows]
        assert texts == [*GROUPS["capital"], *GROUPS[NEUTRAL]]
        assert len({(ids[: context.start], ids[context.end :]) for ids in context.rows}) == 1


def test_words_of_other_lengths_are_left_out_and_counted(asker):
    more = {**GROUPS, "capital": (*GROUPS["capital"], "XYZ")}
    assert contexts(asker, more, TEMPLATES, ITEMS).rejected == {"XYZ": "+2 tokens against most words"}
    few = {**GROUPS, "long": ("Asian", "Polish", *"123")}
    with pytest.raises(ConfigError, match=r"group `long`: 3 words .* at least 6 .*`Asian` \+4 tokens"):
        contexts(asker, few, TEMPLATES, ITEMS)


def test_a_template_may_name_the_word_once(asker):
    with pytest.raises(ConfigError, match="changes in more than one place"):
        contexts(asker, GROUPS, ("You are {who}, very {who}.",), ITEMS)


@pytest.mark.parametrize("head", [1, 3])
def test_the_head_that_was_planted_is_found(head):
    subject = Subject(planted(head), TOKENIZER, chat_template="builtin:plain")
    asker = Asker(subject, "chat", "letters")
    study = attending(asker, contexts(asker, GROUPS, TEMPLATES, ITEMS), "planted")
    strongest = study.strongest("capital")[0]
    assert strongest.head == Head(2, head) == study.top(1)[0]
    assert strongest.word.value > 0.5 > 10 * strongest.neutral
    assert strongest.word.value > 10 * strongest.elsewhere
    found = page(study, None).html()
    assert "<svg" in found
    assert f"2.{head}" in found


def test_no_head_is_found_among_words_of_one_kind(asker):
    letters = "abcdefghijklmnopqrstuvwx"
    groups = {"any": tuple(letters[::2]), NEUTRAL: tuple(letters[1::2])}
    study = attending(asker, contexts(asker, groups, TEMPLATES, ITEMS), "tiny")
    assert study.concentration["any"].found == 0
    p = [one.p for one in study.results]
    assert len(p) == study.layers * study.heads == 16
    assert np.mean(np.array(p) < 0.05) < 0.5


def test_shares_are_read_where_the_word_is(asker, given):
    study = attending(asker, replace(given, contexts=given.contexts[:1]), "tiny")
    context, expected = given.contexts[0], []
    for ids in context.rows[:10]:
        row = torch.tensor([ids])
        weighted = asker.subject.activations.attention(row, torch.ones_like(row)).weighted[0]
        expected.append(float(weighted[2, 1, context.start : context.end].sum()))
    (found,) = (one for one in study.results if one.head == Head(3, 1))
    assert found.word.value == pytest.approx(np.mean(expected), rel=1e-4)


def test_scaled_heads_are_multiplied_and_no_others(asker):
    ids = torch.tensor([TOKENIZER("some words")["input_ids"]])
    activations, seen = asker.subject.activations, {}
    (site, change), *rest = scaled(asker.subject, [Head(2, 1), Head(2, 3)], 0.5).items()
    assert (site, rest) == (Site(2, "heads"), [])

    def both(values):
        seen["before"] = values.clone()
        change(values)
        seen["after"] = values.clone()

    activations.run(ids, torch.ones_like(ids), {site: both})
    factors = torch.tensor([1, 0.5, 1, 0.5]).repeat_interleave(activations.head_size(2))
    assert torch.equal(seen["after"], seen["before"] * factors)


def test_a_factor_of_one_changes_nothing_and_zero_does(asker, given):
    same = ablation(asker, given, ITEMS[:2], [Head(1, 0)], 1.0)
    assert same.scaled.accuracy_change.value == same.scaled.effect_change["capital"].value == 0
    none = ablation(asker, given, ITEMS[:2], [Head(4, 0), Head(4, 1)], 0.0)
    assert none.scaled.effect_change["capital"].value != 0
    # two other heads are left in the layer: all draws are the same two
    assert len({one.effect_change["capital"] for one in none.random}) == 1
    assert ablation(asker, given, ITEMS[:2], [Head(4, i) for i in range(3)]).random == ()


@pytest.mark.parametrize(("text", "told"), [("3", "write LAYER.HEAD"), ("1.-1", "write LAYER.HEAD")])
def test_what_is_not_a_head(text, told):
    with pytest.raises(ConfigError, match=told):
        Head.parse(text)


def test_a_head_that_is_not_there(asker):
    with pytest.raises(ConfigError, match=r"there is no head 9\.0: layers are 1 to 4, heads 0 to 3"):
        scaled(asker.subject, [Head(9, 0)], 0.0)


def test_where_attention_cannot_be_read_named_heads_are_scaled(tmp_path, capsys):
    config = AutoConfig.for_model("bloom", hidden_size=32, n_layer=2, n_head=4, vocab_size=262)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    page = tmp_path / "page.html"
    given = ["interpret", "heads", "--model", str(tmp_path), *files(tmp_path, GROUPS), "--items", "2"]
    assert run(given) == 2
    told = "cannot be read; heads named with --head can still be scaled"
    assert told in capsys.readouterr().err
    assert run([*given, "--head", "1.3", "--html", str(page)]) == 0
    told = capsys.readouterr().out
    assert "cannot be read: heads are scaled without it" in told
    assert "effect of capital" in told
    assert "change (points)" in told
    assert "cannot be read: heads are scaled without it" in page.read_text()


def files(folder, groups):
    """Items and words as files, as options of the verb."""
    asked = [{"question": i.question, "options": list(i.options), "answer": i.answer} for i in ITEMS]
    lines = [{"group": group, "word": word} for group, words in groups.items() for word in words]
    for name, rows in (("items", asked), ("words", lines)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ["--data", str(folder / "items.jsonl"), "--words", str(folder / "words.jsonl")]


def test_word_files(tmp_path):
    file = tmp_path / "words.jsonl"
    lines = [{"group": group, "word": word} for group, words in GROUPS.items() for word in words]
    file.write_text("\n".join(map(json.dumps, lines)))
    assert read_words(file) == {group: list(words) for group, words in GROUPS.items()}
    file.write_text('{"group": "race", "word": "Asian"}')
    with pytest.raises(ConfigError, match="needs words of the group `neutral`"):
        read_words(file)
    assert len({word for words in WORDS.values() for word in words}) == sum(map(len, WORDS.values()))


def test_the_verb_on_the_built_in_model(tmp_path, capsys):
    report = tmp_path / "heads.html"
    some = {group: words[:6] for group, words in DEMO_WORDS.items()}
    given = ["interpret", "heads", *files(tmp_path, some), "--items", "2"]
    given += ["--template", "You are {who}.", "--device", "cpu"]
    drawn = tmp_path / "drawn"
    assert run([*given, "--head", "1.3", "--html", str(report), "--figures", str(drawn)]) == 0
    assert {one.name for one in drawn.iterdir()} == {"heads-by-group.png", "heads-by-group.svg"}
    told = capsys.readouterr().out
    assert "heads attend to it beyond neutral words" in told
    assert "effect of nationality" in told
    text = report.read_text()
    assert text.count("<figure>") == 1
    assert "Heads scaled" in text
    assert run([*given, "--top", "1", "--head", "1.0"]) == 2
    assert "leave out --head" in capsys.readouterr().err
