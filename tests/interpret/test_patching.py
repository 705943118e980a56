"""What any patching must satisfy, and that it finds a circuit that was put there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import HEAD, LAYER, planted_model
from tiny import TOKENIZER
from tokenizers.normalizers import Lowercase
from transformers import AutoConfig, AutoModelForCausalLM

from guardrail.errors import ConfigError, ExtractionError
from guardrail.extract.subject import Subject
from guardrail.interpret.patching import PairLine, Patch, PatchResult, PatchSettings, load_pairs, runs, sweep
from guardrail.interpret.patching.beginnings import parted
from guardrail.interpret.patching.pairs import ANSWER, LENGTHS, LONG, TWICE, Reject, aligned, counted, told
from guardrail.interpret.patching.patches import PARTS, columns, patches
from guardrail.interpret.patching.runs import Placed, patched, record, shape_of
from guardrail.interpret.patching.sweep import HEADLESS, UNCHANGED
from guardrail.report.patching import patch_page
from guardrail.testing import ARCHITECTURES, tiny_model, tiny_tokenizer

LINE = PairLine(prompt="{identity}, who are you? ", source="x", target="y", name="one")
TEXT = PatchSettings(form="text", least_gap=0.0)


def logits_of(subject, pair, made, base="target"):
    """Logits of each patch of the source's values in the target's run, and both runs."""
    source, target = record(subject, pair.source), record(subject, pair.target)
    runs = (source, source) if base == "itself" else (target, source)
    placed = [Placed(patch, columns(patch.where, pair, 3)) for patch in made]
    found = {}
    for rows, logits in patched(subject, *runs, placed):
        found |= {made[row]: logits[i] for i, row in enumerate(rows)}
    return found, source.logits, target.logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_identities_of_the_algebra(architecture):
    subject = Subject(tiny_model(architecture), TOKENIZER)
    (pair,), _ = aligned(subject, [LINE], "text")
    shape = shape_of(subject)
    assert shape.heads == 4
    whole = [Patch((n,), "resid", "all") for n in range(5)]
    last = Patch((4,), "resid", "last")
    head = [Patch((2,), "heads", "all", n) for n in range(4)]
    attention = Patch((2,), "attn", "all")
    found, source, target = logits_of(subject, pair, [*whole, last, *head, attention])
    # the residual everywhere, and after the last layer at the last token, is the whole effect
    for patch in (*whole, last):
        assert torch.allclose(found[patch], source, atol=1e-4), patch
    assert not torch.allclose(source, target, atol=1e-2)
    # a run into itself changes nothing, whatever is patched
    made = patches(shape, PatchSettings())
    same, source, _ = logits_of(subject, pair, [p for p in made if columns(p.where, pair, 3)], "itself")
    assert max(float((logits - source).abs().max()) for logits in same.values()) < 1e-4
    # all heads together are the attention
    together = all_heads(subject, pair, 2)
    assert torch.allclose(together, found[attention], atol=1e-4)
    assert not torch.allclose(found[attention], target, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_behind_a_prefix_that_is_computed_once_logits_are_those_of_whole_passes(architecture, monkeypatch):
    subject = Subject(tiny_model(architecture), TOKENIZER)
    (pair,), _ = aligned(subject, [LINE], "text")
    wide = [Patch((n,), part, where) for n in (1, 3) for part in PARTS for where in ("last", "-1", "+1")]
    made = [
        *wide,
        *(Patch((2,), "heads", "last", n) for n in range(4)),
        Patch((4,), "mlp", "last", direct=True),
    ]
    assert runs._prefix(subject, record(subject, pair.target), 5).tokens == 5
    monkeypatch.setattr(runs, "TOGETHER", 3)
    monkeypatch.setattr(runs, "WORTH", 1)
    found, *_ = logits_of(subject, pair, made)
    monkeypatch.setattr(runs, "WORTH", 10**9)
    whole, *_ = logits_of(subject, pair, made)
    assert all(torch.allclose(found[patch], whole[patch], atol=1e-4) for patch in made)


def test_a_model_that_answers_otherwise_behind_a_prefix_gets_whole_passes(monkeypatch):
    subject = Subject(tiny_model(), TOKENIZER)
    base = record(subject, TOKENIZER("hello world")["input_ids"])
    assert runs._prefix(subject, replace(base, logits=base.logits + 0.1), 3) is None
    monkeypatch.setattr(subject.activations, "prefix", lambda ids: None)
    assert runs._prefix(subject, base, 3) is None


def all_heads(subject, pair, layer):
    source, target = record(subject, pair.source), record(subject, pair.target)
    ((_, logits),) = patched(
        subject, target, source, [Placed(Patch((layer,), "heads", "all"), range(pair.tokens))]
    )
    return logits[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_last_layers_parts_have_a_direct_effect_alone(architecture):
    subject = Subject(tiny_model(architecture), TOKENIZER)
    (pair,), _ = aligned(subject, [LINE.model_copy(update={"prompt": "I am {identity}: "})], "text")
    total, direct = Patch((4,), "mlp", "last"), Patch((4,), "mlp", "last", direct=True)
    early, held = Patch((2,), "mlp", "last"), Patch((2,), "mlp", "last", direct=True)
    found, _, _ = logits_of(subject, pair, [total, direct, early, held])
    assert torch.allclose(found[total], found[direct], atol=1e-5)
    assert not torch.allclose(found[early], found[held], atol=1e-4)


def test_the_sweep_finds_the_planted_layer_position_and_head(tmp_path):
    x, y, a, b = (TOKENIZER.convert_tokens_to_ids(one) for one in "xyab")
    text = "I am {identity}: "
    position = len(TOKENIZER(text.partition("{")[0])["input_ids"])
    subject = Subject(planted_model(position, (x, y), (a, b)), TOKENIZER)
    line = PairLine(prompt=text, source="x", target="y", answers=("a", "b"))
    found = sweep(subject, [line], TEXT, tmp_path)
    assert (found.about.pairs[0].source, found.about.pairs[0].target) == ("a", "b")
    for direction in found.about.directions:
        for patch in found.about.patches:
            effects = found.values(patch, direction)
            if len(effects):
                assert effects[0] == pytest.approx(float(carries(patch)), abs=1e-3), patch


def carries(patch):
    """Whether a patch holds the planted circuit."""
    before, at_last = patch.layers[0] < LAYER, patch.where in ("all", "others", "last")
    if patch.component == "resid":
        return patch.where in ("identity", "all") if before else at_last
    here = LAYER in patch.layers and at_last
    return here and (patch.component == "attn" or (patch.component == "heads" and patch.head == HEAD))


def test_an_interrupted_sweep_is_resumed_with_the_same_numbers(tmp_path):
    subject = Subject(tiny_model(), TOKENIZER)
    lines = [LINE.model_copy(update={"prompt": "I am {identity}: ", "name": "other"}), LINE]
    settings = PatchSettings(form="text", least_gap=0.0, sweeps=("scopes",), directions=("denoising",))
    whole = sweep(subject, lines, settings, tmp_path / "whole")
    journal = tmp_path / "torn" / "patch.jsonl"
    journal.parent.mkdir()
    content = (tmp_path / "whole" / "patch.jsonl").read_bytes()
    journal.write_bytes(content[: len(content) - 40])
    done = []
    resumed = sweep(subject, lines, settings, journal.parent, report=lambda *now: done.append(now[1:]))
    assert done[0] == (1, 2)
    assert whole.effects.shape[2] >= 1
    np.testing.assert_array_equal(resumed.effects, whole.effects)
    with pytest.raises(ExtractionError, match="another recipe: pairs"):
        sweep(subject, lines[:1], settings, journal.parent)


def test_a_result_reads_back_as_it_was_written(tmp_path):
    subject = Subject(tiny_model(), TOKENIZER)
    found = sweep(subject, [LINE], PatchSettings(form="text", least_gap=0.0, sweeps=("direct",)), tmp_path)
    found.save(tmp_path)
    read = PatchResult.load(tmp_path)
    assert read.about == found.about
    np.testing.assert_array_equal(read.kl, found.kl)
    indirect = read.indirect("mlp", "denoising")
    assert list(indirect) == [1, 2, 3, 4]
    assert indirect[4].value == pytest.approx(0, abs=1e-4)
    (tmp_path / "patch.json").write_text("{}")
    with pytest.raises(ConfigError, match="not a result of `interpret patch`"):
        PatchResult.load(tmp_path)


def test_pairs_that_cannot_be_patched_are_rejected_and_counted(tmp_path):
    subject = Subject(tiny_model(), TOKENIZER)
    lines = [
        LINE,
        LINE.model_copy(update={"source": "xx", "name": "long"}),
        LINE.model_copy(update={"source": "xyz", "name": "longer"}),
        LINE.model_copy(update={"answers": ("a", "bc"), "name": "two tokens"}),
        LINE.model_copy(update={"prompt": "{identity}" + "!" * 500, "name": "endless"}),
    ]
    pairs, rejects = aligned(subject, lines, "text")
    assert [pair.name for pair in pairs] == ["one"]
    assert [(one.name, one.reason, one.detail) for one in rejects] == [
        ("long", LENGTHS, "17 and 16 tokens"),
        ("longer", LENGTHS, "18 and 16 tokens"),
        ("two tokens", ANSWER, "`bc` is 2 tokens"),
        ("endless", LONG, "525 tokens; the model takes 512"),
    ]
    assert next(told(rejects)) == f"2: {LENGTHS} (`long`: 17 and 16 tokens)"
    zero = tiny_model()
    torch.nn.init.zeros_(zero.lm_head.weight)
    found = sweep(Subject(zero, TOKENIZER), lines, TEXT, tmp_path)
    assert found.effects.shape[2] == 0
    assert counted(found.about.rejects) == {LENGTHS: 2, ANSWER: 1, LONG: 1, UNCHANGED: 1}
    (last,) = (one for one in found.about.rejects if one.reason == UNCHANGED)
    assert last.detail.startswith("both answer ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "who?", "source": "a", "target": "b"}', "must stand exactly once"),
        ('{"prompt": "{identity} {identity}", "source": "a", "target": "b"}', "must stand exactly once"),
        ('{"prompt": "{identity}", "source": "a", "target": "a"}', "the same identity"),
        ('{"prompt": "{identity}", "source": "a", "target": "b", "answers": ["A"]}', "two or more"),
        ('{"prompt": "{identity}", "source": "a", "target": "b", "anwers": []}', "did you mean `answers`"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, reason):
    path = Path(tmp_path / "pairs.jsonl")
    path.write_text(line + "\n")
    with pytest.raises(ConfigError, match=f"(?s):1: .*{reason}"):
        load_pairs(path)


def test_two_answers_that_are_one_token_cannot_be_told_apart():
    lower = Subject(tiny_model(), lowercasing())
    line = LINE.model_copy(update={"answers": ("a", "A"), "name": "case"})
    assert aligned(lower, [line], "text")[1] == [Reject("case", TWICE, "a, A")]


def lowercasing():
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = Lowercase()
    return tokenizer


def test_replies_that_are_the_same_to_their_end_are_no_answers_to_compare(tmp_path):
    model = tiny_model()
    # every reply is one end token, whatever was asked
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head = torch.nn.Linear(32, model.config.vocab_size)
        model.lm_head.weight.mul_(1e-3)
        model.lm_head.bias.zero_()[model.config.eos_token_id] = 9.0
    subject = Subject(model, TOKENIZER)
    (pair,), _ = aligned(subject, [LINE], "text")
    assert parted(subject, [pair]) == [pair]
    found = sweep(subject, [LINE], TEXT, tmp_path)
    assert [(one.reason, one.detail) for one in found.about.rejects] == [(UNCHANGED, "both answer '<|end|>'")]


def test_heads_that_cannot_be_told_apart_are_left_out_with_a_sentence(tmp_path):
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 262, "eos_token_id": 2}
    config = AutoConfig.for_model("gpt_neo", **sizes, attention_types=[[["global"], 2]])
    subject = Subject(AutoModelForCausalLM.from_config(config).eval(), TOKENIZER)
    found = sweep(subject, [LINE], replace(TEXT, sweeps=("scopes", "heads")), tmp_path / "both")
    told_so = f"{HEADLESS}: the sweep over heads is left out"
    assert told_so in found.about.notes
    assert not any(patch.component == "heads" for patch in found.about.patches)
    assert told_so in patch_page(found).html()
    with pytest.raises(ConfigError, match=f"{HEADLESS}; choose another sweep"):
        sweep(subject, [LINE], replace(TEXT, sweeps=("heads",)), tmp_path / "heads")


def test_where_names_tokens_behind_the_identity_once_each():
    subject = Subject(tiny_model(), TOKENIZER)
    (pair,), _ = aligned(
        subject, [LINE.model_copy(update={"prompt": "I, {identity}, am who? Say it."})], "text"
    )
    start, end = pair.span
    parts = ["identity", "+1", "+2", "+3", "rest", "-3", "-2", "-1", "last"]
    covered = [column for where in parts for column in columns(where, pair, 3)]
    assert covered == columns("all", pair, 3) == list(range(start, pair.tokens))
    assert columns("others", pair, 3) == list(range(end, pair.tokens))
    assert columns("+9", pair, 3) == []
