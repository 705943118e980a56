"""`guardrail interpret lens`: identities, the score and its bounds, items, the tuned lens, and the verb."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from self_bleu import self_bleu
from tiny import TOKENIZER

from guardrail.cli import run
from guardrail.errors import ConfigError, ModelError
from guardrail.extract.subject import Subject
from guardrail.interpret.lens import consistency as s
from guardrail.interpret.lens.picture import look
from guardrail.interpret.lens.prompts import ask, exchanged, first_tokens
from guardrail.interpret.lens.reading import Reading, last_states, read
from guardrail.interpret.lens.study import LensStudy, contrast, score
from guardrail.interpret.lens.tasks import TASKS, Item, shipped
from guardrail.interpret.lens.tasks import read as read_items
from guardrail.interpret.lens.training import Training, train
from guardrail.interpret.lens.tuned import TunedLens
from guardrail.interpret.lens.unembedding import Unembedding
from guardrail.testing import ARCHITECTURES, tiny_model

ITEMS = [
    Item(persona=f"You are a {who}.", prompt=prompt, answers=(answer,), alone=alone)
    for who, prompt, answer, alone in (
        ("cook", "Soup needs", "salt", True),
        ("Dane", "My capital is", "Copenhagen", False),
        ("poet", "Roses are", "red", True),
        ("judge", "Truth is not a", "lie", True),
    )
]
QUICK = Training(texts=20, tokens=16, steps=20)


@pytest.fixture(scope="module")
def subject():
    return Subject(tiny_model(), TOKENIZER)


@pytest.fixture(scope="module")
def unembedding(subject):
    return Unembedding(subject.local)


@pytest.fixture(scope="module")
def tuned(subject, unembedding):
    return train(subject, unembedding, QUICK)


@pytest.fixture(scope="module")
def demo():
    return Subject.load("demo")


def noise(rows=40, layers=10, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((rows, layers)) < 0.4, rng.random((rows, layers))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_lens_after_the_last_layer_gives_the_models_logits(architecture):
    made = Subject(tiny_model(architecture), TOKENIZER)
    ids, mask = made.local.padded([list(TOKENIZER("one more prompt")["input_ids"])], left=True)
    states = last_states(made, ids.tolist())
    found = Unembedding(made.local).logits(torch.from_numpy(states[:, -1]))
    with torch.no_grad():
        own = made.model(input_ids=ids, attention_mask=mask).logits[:, -1]
    assert torch.allclose(found, own, atol=1e-4)
    # a lens that ignored its input could not be told from this one
    assert not torch.allclose(Unembedding(made.local).logits(torch.from_numpy(states[:, 1])), own, atol=1e-2)


def test_capped_and_scaled_logits_are_the_models():
    made = Subject(tiny_model("gemma3_text", final_logit_softcapping=2.0), TOKENIZER)
    states = last_states(made, [[1, 9, 8]])
    with torch.no_grad():
        found = Unembedding(made.local).logits(torch.from_numpy(states[:, -1]))
    assert float(found.abs().max()) < 2.0


def test_a_model_that_ends_otherwise_is_refused():
    model = tiny_model()
    made = Subject(model, TOKENIZER)
    model.lm_head.register_forward_hook(lambda module, given, output: output * (1 if output.ndim == 2 else 2))
    with pytest.raises(ModelError, match="do not give the model's own logits"):
        Unembedding(made.local)


@pytest.mark.parametrize("layers", [8, 18, 30, 32])
@pytest.mark.parametrize("share", s.SHARES)
def test_the_bound_is_reached_and_never_passed(layers, share):
    count = int(layers * share + 1e-9)
    most = s.bound(layers, share)
    assert most == pytest.approx(count * (count + 1) / (2 * layers))
    always = np.ones((1, layers), bool)
    assert s.consistency(always, np.ones((1, layers)), share)[0] == pytest.approx(most)
    hits, p = noise(layers=layers)
    assert np.all(s.consistency(hits, p, share) <= most)
    assert np.all(s.consistency(hits, p, share) >= 0)


def test_s_never_falls_with_the_share():
    hits, p = noise()
    found = [s.consistency(hits, p, share) for share in s.SHARES]
    assert all(np.all(a <= b) for a, b in pairwise(found))
    assert np.any(found[0] < found[-1])
    assert np.allclose(s.bands(hits, p).cumsum(1)[:, 2], found[2])


def test_s_of_a_hand_made_item():
    """Four layers; the answer is likeliest after layers 2 and 4, with .5 and .8."""
    hits, p = np.array([[False, True, False, True]]), np.array([[0.9, 0.5, 0.6, 0.8]])
    assert s.consistency(hits, p, 1.0)[0] == pytest.approx(0.5 * 0.75 + 0.8 * 0.25)
    assert s.consistency(hits, p, 0.4)[0] == pytest.approx(0.8 * 0.25)
    assert s.consistency(hits, p, 1.0, final=False)[0] == pytest.approx(0.5 * 0.75)
    assert s.consistency(hits, p, 1.0, weighting="ascending")[0] == pytest.approx(0.5 * 0.5 + 0.8 * 1.0)
    assert s.first_hits(hits).tolist() == [0.5]
    assert s.first_hits(hits, 0.4).tolist() == [1.0]
    found = score(np.repeat(hits, 2, 0), np.repeat(p, 2, 0), 1.0)
    assert found.normalised.value == pytest.approx(found.mean.value / 2.5)
    assert found.median == pytest.approx(0.575)


def test_a_contrast_says_where_a_difference_comes_from():
    first, second = np.zeros((30, 5)), np.zeros((30, 5))
    first[:, 1] = 0.2
    alone = np.arange(30) < 10
    first[~alone, 1] = 0.4
    found = contrast(first, second, alone, "without", "dataset")
    assert [round(one.value, 6) for one in found.by_band] == [0, round(10 / 3 / 10, 6), 0, 0, 0]
    assert [round(one.value, 6) for one in found.alone] == [0, 0.2, 0.2, 0.2, 0.2]


def test_shipped_items_are_many_and_varied():
    for task, most in zip(TASKS, (0.25, 0.3, 0.4), strict=True):
        items = shipped(task)
        assert len(items) >= 200
        assert len({item.prompt for item in items}) == len(items) == len({item.persona for item in items})
        assert 20 <= sum(not item.alone for item in items) <= 60
        assert all(answer == answer.strip() for item in items for answer in item.answers)
        assert self_bleu([f"{item.persona} {item.prompt}" for item in items]) < most


def test_self_bleu_of_texts_that_are_known():
    same = ["the cat sat on the mat"] * 3
    assert self_bleu(same) == pytest.approx(1.0)
    apart = ["a b c d e f", "g h i j k l", "m n o p q r"]
    assert self_bleu(apart) < 0.15 < self_bleu([*same[:2], *apart])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"persona": "You.", "prompt": "x", "answers": []}', r"x\.jsonl:1: .*answers"),
        ('{"persona": " ", "prompt": "x", "answers": ["a"]}', r"x\.jsonl:1: .*persona"),
        ('{"persona": "You.", "prompt": "x", "answer": "a"}', r"x\.jsonl:1: unknown key `answer`.*answers"),
        ("", "contains no item"),
    ],
)
def test_bad_items_are_named(tmp_path, line, told):
    path = tmp_path / "x.jsonl"
    path.write_text(line)
    with pytest.raises(ConfigError, match=told):
        read_items(path)


def test_conditions_differ_in_the_persona_alone(subject):
    asked = ask(subject, ITEMS)
    texts = {c: [TOKENIZER.decode(ids) for ids in rows] for c, rows in asked.rows.items()}
    assert texts["with"][0].endswith("You are a cook. Soup needs")
    assert texts["without"][0].endswith("Soup needs")
    assert "cook" not in texts["without"][0]
    assert all(
        a != b and a.split(".")[1] == b.split(".")[1]
        for a, b in zip(texts["with"], texts["other"], strict=True)
    )
    assert sorted(exchanged("abcdef")) == list("abcdef")
    chat = ask(subject, ITEMS, "chat").rows
    assert "<|system|>You are a cook." in TOKENIZER.decode(chat["with"][0])
    assert "<|system|>" not in TOKENIZER.decode(chat["without"][0])


def test_answers_of_several_tokens_count_by_their_first_and_blank_ones_are_left_out(demo, subject):
    assert ask(subject, ITEMS).several == 4
    assert first_tokens(demo, ["Paris"]) <= first_tokens(demo, ["Paris", "Rome"])
    # bytes as tokens: a space begins every answer, and must not count as one
    assert first_tokens(subject, ["salt"]) == frozenset(subject.local.renderer.encode("s"))
    blank = [*ITEMS, Item(persona="You.", prompt="Say nothing:", answers=("\u2003x",))]
    assert len(ask(subject, blank).items) == 5
    nothing = [item.model_copy(update={"answers": (" ",)}) for item in ITEMS]
    with pytest.raises(ConfigError, match="fewer than two items"):
        ask(subject, nothing)


def test_the_tuned_lens_reads_no_worse_and_leaves_the_last_layer_alone(subject, unembedding, tuned, tmp_path):
    assert all(after <= before for before, after in zip(tuned.before, tuned.after, strict=True))
    assert sum(tuned.after) < 0.8 * sum(tuned.before)
    states = last_states(subject, [[1, 20, 30], [1, 40, 50, 60]])
    plain, better = read(states, unembedding), read(states, unembedding, tuned.translate)
    assert np.array_equal(plain.tokens[:, -1], better.tokens[:, -1])
    assert np.allclose(better.divergences[:, -1], 0)
    tuned.save(tmp_path / "lens.safetensors")
    again = TunedLens.load(tmp_path / "lens.safetensors")
    assert torch.equal(again.maps, tuned.maps)
    assert again.after == tuned.after
    assert np.array_equal(read(states, unembedding, again.translate).tokens, better.tokens)


def test_tuned_lenses_of_others_and_other_files_are_refused(tuned, tmp_path):
    with pytest.raises(ModelError, match="trained for other weights"):
        LensStudy(Subject(tiny_model(seed=5), TOKENIZER), "other", tuned=tuned)
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="is not a tuned lens"):
        TunedLens.load(tmp_path / "x")


def test_a_study_counts_what_it_asked(subject, tuned):
    logit, other = LensStudy(subject, "tiny", tuned=tuned).run("mine", ITEMS)
    assert (logit.lens, other.lens, logit.items, logit.needing, logit.several) == ("logit", "tuned", 4, 1, 4)
    # the model's own final token is always right about itself
    assert logit.score("without", "own", 1.0).hit_rate.value == 1.0
    assert (
        logit.score("without", "own", 1.0).mean.value
        >= logit.score("without", "own", 1.0).without_final.value
    )
    assert other.divergence != logit.divergence
    assert other.accuracy == logit.accuracy
    paper = logit.contrast("without", "paper").by_share[-1].value
    expected = logit.score("with", "dataset", 1.0).mean.value - logit.score("without", "own", 1.0).mean.value
    assert paper == pytest.approx(expected)
    json.dumps(logit.as_json())


def test_hits_are_of_the_likeliest_token():
    reading = Reading(np.array([[1, 2], [3, 3]]), np.ones((2, 2)), np.zeros((2, 2)))
    assert reading.hits([frozenset({2, 9}), frozenset({3})]).tolist() == [[False, True], [True, True]]
    assert reading.own == [frozenset({2}), frozenset({3})]


def test_a_picture_of_the_demo_model_ends_with_its_answer(demo):
    picture = look(demo, Unembedding(demo.local), "You are Italian. The capital of my country is", "demo")
    assert picture.shown[-1][-1] == " Rome"
    assert picture.probabilities[-1][-1] > 0.9
    assert picture.probabilities[-1][-1] > picture.probabilities[0][-1]
    assert len(picture.shown) == 8
    assert len(picture.tokens) == len(picture.shown[0])
    assert picture.tokens[-1] == " is"


OWN = [
    {
        "persona": f"You are {who}.",
        "prompt": "The capital of my country is",
        "answers": [city],
        "alone": False,
    }
    for who, city in (("Italian", "Rome"), ("Greek", "Athens"), ("Cuban", "Havana"))
]


@pytest.fixture
def own_items(tmp_path):
    path = tmp_path / "capitals.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in OWN))
    return path


@pytest.mark.slow
def test_the_verb_puts_models_side_by_side_and_writes_pages_and_figures(own_items, tmp_path, capsys):
    page, figures = tmp_path / "lens.html", tmp_path / "figures"
    command = ["interpret", "lens", "--data", str(own_items), "--also", "demo"]
    assert run([*command, "--html", str(page), "--figures", str(figures)]) == 0
    told = capsys.readouterr().out
    assert told.count("capitals  demo") >= 2
    html = page.read_text()
    assert "Layers by tokens" in html
    assert "S with the persona less S otherwise" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert {path.suffix for path in figures.iterdir()} == {".png", ".svg"}
    assert len(list(figures.iterdir())) == 8


def test_the_verb_prints_json_and_refuses_another_models_tuned_lens(own_items, tmp_path, capsys, tuned):
    kept = tmp_path / "lens.safetensors"
    tuned.save(kept)
    command = ["interpret", "lens", "--data", str(own_items), "--json"]
    assert run([*command, "--tuned-lens", str(kept)]) == 2
    assert "trained for other weights" in capsys.readouterr().err
    assert run([*command, "--prompt", "You are Greek. The capital of my country is"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["results"][0]["accuracy"]["with"]["value"] == 1.0
    assert found["results"][0]["accuracy"]["other"]["value"] == 0.0
    assert found["pictures"][0]["shown"][-1][-1] == " Athens"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--task", "riddles"], "there is no task `riddles`; shipped: cloze, comparison, common-sense"),
        (["--data", "missing.jsonl"], "missing.jsonl: cannot be read"),
        (["--tuned-lens", "no/such/lens.safetensors"], "there is no such folder"),
        (["--also", "no/such/model"], "no/such/model"),
    ],
)
def test_bad_options_are_said_in_words(given, told, capsys):
    assert run(["interpret", "lens", *given]) == 2
    assert told in capsys.readouterr().err
