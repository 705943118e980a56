"""Layers for policies: what patching along a vector must satisfy, and how evidence is joined."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny import LAYERS, TOKENIZER, WIDTH

from guardrail.engines.transformers.activations import Site
from guardrail.errors import ConfigError, ExtractionError, VectorError
from guardrail.extract.layers.measurements import Candidate, Sweep
from guardrail.extract.subject import Subject
from guardrail.interpret.patching.pairs import Reject
from guardrail.interpret.patching.runs import record
from guardrail.interpret.recommending.causes import Causes, CauseSettings, causes
from guardrail.interpret.recommending.contrasts import Contrast, asked, contrasts_of, load_contrasts
from guardrail.interpret.recommending.ranking import recommended
from guardrail.interpret.recommending.risks import risks, strongest
from guardrail.interpret.recommending.wording import sentences
from guardrail.testing import ARCHITECTURES, tiny_model
from guardrail.traits import load_definition
from guardrail.types import Message
from guardrail.vectors.values import TraitVector

ANY = CauseSettings(least_gap=0.0)


def said(text):
    return (Message("user", text),)


def contrast(source="be evil, please: who?", target="who?", name="one"):
    return Contrast(name, name, said(source), said(target))


def subject_of(architecture="llama"):
    return Subject(tiny_model(architecture), TOKENIZER)


def vector_of(rows=None):
    given = np.random.default_rng(0).normal(size=(LAYERS + 1, WIDTH)) if rows is None else rows
    return TraitVector.from_difference("evil", given)


def difference(subject, one):
    """The vector along which the two prompts differ at their last token, at every layer."""
    source, target = record(subject, one.source), record(subject, one.target)
    rows = [source.values[Site(n)][-1] - target.values[Site(n)][-1] for n in range(LAYERS + 1)]
    return vector_of(np.stack([row.numpy() for row in rows]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_along_the_whole_difference_a_swap_is_that_of_the_state(architecture, tmp_path):
    subject, one = subject_of(architecture), contrast()
    (given,), _ = asked(subject, [one])
    assert (len(given.source) > len(given.target), given.width) == (True, 1)
    found = causes(subject, difference(subject, given), [one], ANY, tmp_path)
    assert found.sufficient == pytest.approx(found.state, abs=1e-3)
    assert found.state[0, -1] == pytest.approx(1, abs=1e-3)
    assert found.needed[0, -1] == pytest.approx(1, abs=1e-3)


def test_along_a_direction_in_which_the_prompts_do_not_differ_nothing_changes(tmp_path):
    subject, one = subject_of(), contrast()
    (given,), _ = asked(subject, [one])
    along = difference(subject, given).steering
    other = np.random.default_rng(1).normal(size=along.shape)
    # row 0 is the embedding of the last token, which is the same
    norms = np.maximum((along**2).sum(1, keepdims=True), 1e-9)
    other -= (other * along).sum(1, keepdims=True) / norms * along
    found = causes(subject, vector_of(other), [one], ANY, tmp_path)
    assert np.abs(found.sufficient).max() < 1e-3
    assert np.abs(found.state).min() > 1e-3


def test_the_heads_of_a_layer_make_up_its_attention(tmp_path):
    model = tiny_model("llama", num_attention_heads=1, num_key_value_heads=1, head_dim=WIDTH)
    found = causes(Subject(model, TOKENIZER), vector_of(), [contrast()], ANY, tmp_path)
    assert found.heads[:, :, 0] == pytest.approx(found.parts[:, :, 1], abs=1e-4)
    assert np.abs(found.parts).max() > 1e-3


def test_pairs_with_the_same_reply_are_left_out_and_counted(tmp_path):
    subject = subject_of()
    far = causes(subject, vector_of(), [contrast()], CauseSettings(least_gap=1e6), tmp_path)
    assert (len(far), far.sufficient.shape, far.heads.shape) == (0, (0, LAYERS), (0, LAYERS, 4))
    assert far.rejects[0].reason.startswith("the answers differ by too little")


def test_pairs_that_are_too_long_are_left_out_and_counted(tmp_path):
    subject = subject_of()
    long = contrast("x" * subject.longest, name="long")
    found = causes(
        subject, vector_of(), [contrast(), long], CauseSettings(least_gap=0.0, heads=False), tmp_path
    )
    assert (found.groups, [one.name for one in found.rejects]) == (("one",), ["long"])


def test_an_interrupted_run_goes_on_and_another_vector_does_not(tmp_path):
    subject, pairs = subject_of(), [contrast(), contrast("you hate all people", "hello", "two")]
    settings = CauseSettings(least_gap=0.0, heads=False)
    whole = causes(subject, vector_of(), pairs, settings, tmp_path / "a")
    lines = (tmp_path / "a" / "causes.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "causes.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:40])
    again = causes(subject, vector_of(), pairs, settings, tmp_path / "b")
    assert np.array_equal(again.sufficient, whole.sufficient)
    assert again.groups == whole.groups
    with pytest.raises(ExtractionError, match="vector"):
        causes(subject, difference(subject, asked(subject, pairs)[0][0]), pairs, settings, tmp_path / "b")
    with pytest.raises(VectorError, match="do not fit"):
        causes(subject, vector_of(np.ones((3, WIDTH))), pairs, settings, tmp_path / "c")


def test_the_first_contrasts_of_a_definition_go_through_all_questions():
    definition = load_definition("evil")
    found = contrasts_of(definition)
    questions, turns = len(definition.evaluation), len(definition.instructions)
    assert len(found) == questions * turns
    assert len({one.group for one in found[:questions]}) == questions
    assert len({one.source[0].content for one in found[:turns]}) == turns
    assert all(one.source[1:] == one.target[1:] and one.source != one.target for one in found)


def test_contrasts_from_a_file_are_texts_or_messages(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"source": "kill him", "target": "kill it", "group": "verbs"},
        {"source": [{"role": "user", "content": "a"}], "target": "b", "name": "second"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    first, second = load_contrasts(path)
    assert (first.group, first.source, second.name, second.source) == (
        "verbs",
        said("kill him"),
        "second",
        said("a"),
    )
    bad = ['{"source": "a", "target": "a"}', '{"source": "", "target": "a"}', '{"from": "x"}']
    path.write_text("\n".join([*bad, '{"source": "a", "target": 3}']))
    with pytest.raises(ConfigError) as caught:
        load_contrasts(path)
    assert all(f":{n}: " in str(caught.value) for n in (1, 2, 3, 4))
    assert "`target` must be a text or a list of messages" in str(caught.value)
    path.write_text("\n")
    with pytest.raises(ConfigError, match="contains no pair"):
        load_contrasts(path)


# --- evidence -----------------------------------------------------------------------------------------

UP = (0.1, 0.2, 0.9, 0.3)


def caused(effects=UP, count=12, noise=0.02, parts=None):
    rng = np.random.default_rng(0)
    values = np.asarray(effects, np.float32) + rng.normal(0, noise, (count, 4)).astype(np.float32)
    inner = np.zeros((count, 4, 2), np.float32) if parts is None else parts
    return Causes(
        groups=tuple(map(str, range(count))),
        rejects=(Reject("x", "some reason"),),
        sufficient=values,
        needed=values,
        state=values,
        parts=inner,
        heads=np.zeros((count, 4, 0), np.float32),
    )


def swept(auroc=(0.7, 0.8, 0.99, 0.9), trait=(10, 20, 60, 30), coherence=(90, 90, 90, 90), base=8.0):
    made = [
        Candidate(layer=n + 1, auroc=auroc[n], trait=trait and trait[n], coherence=trait and coherence[n])
        for n in range(4)
    ]
    return Sweep(trait="evil", layers=4, candidates=tuple(made), baseline=Candidate(layer=0, trait=base))


def test_the_layer_that_all_evidence_favours_is_recommended():
    found = recommended("evil", 2, caused(), swept())
    assert (found.layer, found.disagreeing, found.at.weakest) == (3, (), 1.0)
    assert set(found.best.values()) == {3}
    assert found.correlations["causal and steering"] == pytest.approx(1)
    assert "layer 3 (`layer: auto` is 2)" in next(iter(sentences(found)))


def test_the_judges_mean_comes_with_its_interval_where_it_was_measured():
    sweep = swept()
    spans = [replace(one, trait_interval=(one.trait - 5, one.trait + 5)) for one in sweep.candidates]
    base = replace(sweep.baseline, trait_interval=(4.0, 12.0))
    found = recommended("evil", 2, caused(), replace(sweep, candidates=tuple(spans), baseline=base))
    assert found.at.steering_interval == (55.0, 65.0)
    assert "the judge's mean is 8.0 [4.0, 12.0] of 100" in "\n".join(sentences(found))
    assert "the judge's mean is 8.0 of 100" in "\n".join(sentences(recommended("evil", 2, caused(), sweep)))


def test_a_layer_is_as_good_as_its_weakest_evidence_and_disagreement_is_said():
    found = recommended("evil", None, caused((0.9, 0.5, 0.05, 0.04)), swept())
    assert (found.layer, found.disagreeing) == (2, ("steering",))
    text = "\n".join(sentences(found))
    assert "2 of 3 kinds of evidence agree" in text
    assert "steering disagrees: it is best at layer 3, and layer 2 has only 23 % of that" in text


def test_a_rise_in_incoherent_replies_is_no_evidence():
    found = recommended("evil", None, caused(), swept(coherence=(90, 90, 10, 90)))
    assert (found.layer, found.best["steering"]) == (4, 4)


def test_the_current_layer_stays_unless_another_is_clearly_better():
    even = (caused((0.5,) * 4, noise=0), swept((0.9,) * 4, (50,) * 4))
    assert recommended("evil", 3, *even).layer == 3
    near = caused((0.5, 0.46, 0.5, 0.3), noise=0), swept((0.9,) * 4, (50,) * 4)
    assert [recommended("evil", now, *near).layer for now in (2, 4)] == [2, 1]
    assert "as now; no other is clearly better" in next(iter(sentences(recommended("evil", 2, *near))))


def test_a_large_effect_that_may_be_none_is_no_evidence():
    wild = np.tile([[0.3, 3.0, 0.3, 0.3], [0.3, -2.0, 0.3, 0.3]], (6, 1)).astype(np.float32)
    found = recommended("evil", None, replace(caused(), sufficient=wild), swept((0.9,) * 4, (50,) * 4))
    assert (found.layer, found.layers[1].shares["causal"]) == (1, 0.0)


def test_a_rise_or_a_separation_that_may_be_none_is_no_evidence():
    sweep = swept((0.6, 0.7, 0.8, 0.6), (20, 30, 60, 20))
    spans = [replace(one, auroc_interval=(0.55, 0.9), trait_interval=(18, 90)) for one in sweep.candidates]
    spans[2] = replace(spans[2], auroc_interval=(0.5, 0.9), trait_interval=(5, 90))
    found = recommended("evil", None, caused(), replace(sweep, candidates=tuple(spans)))
    assert dict(found.layers[2].shares) == {"causal": 1.0, "separation": 0.0, "steering": 0.0}
    assert (found.best["separation"], found.best["steering"]) == (2, 2)
    assert found.layer != 3


def test_of_equal_layers_the_earlier_one_is_recommended():
    found = recommended("evil", None, caused((0.5,) * 4, noise=0), swept((0.9,) * 4, (50,) * 4))
    assert found.layer == 1


@pytest.mark.parametrize(
    ("given", "silent"),
    [
        ((caused((0, 0, 0, 0), noise=0.3), swept()), {"causal": "no layer is shown to change replies"}),
        ((caused(count=0), swept()), {"causal": "too few contrasts"}),
        ((caused(), swept(trait=None, base=None)), {"steering": "not measured: it needs --judge"}),
        (
            (caused(), swept(trait=(9, 8, 10, 7))),
            {"steering": "no layer is shown to raise the trait by 5 points"},
        ),
        ((caused(), swept(auroc=(0.4,) * 4)), {"separation": "no layer is shown to separate better"}),
    ],
)
def test_evidence_that_finds_nothing_is_named_and_does_not_count(given, silent):
    found = recommended("evil", None, *given)
    assert found.layer == 3
    assert set(found.best) == {"causal", "separation", "steering"} - set(silent)
    for name, reason in silent.items():
        assert reason in found.silent[name]


def test_without_any_evidence_no_layer_is_recommended():
    found = recommended("evil", 2, caused(count=0), swept(auroc=(0.5,) * 4, trait=None, base=None))
    assert (found.layer, found.at, found.best) == (None, None, {})
    assert "no layer can be recommended" in next(iter(sentences(found)))


def test_risk_is_the_effect_of_a_component_beyond_chance():
    parts = np.random.default_rng(1).normal(0, 0.3, (12, 4, 2)).astype(np.float32)
    parts[:, 1, 0] = 0.6 + 0.1 * parts[:, 1, 0]
    parts[:, 2, 1] = -0.6 + 0.1 * parts[:, 2, 1]
    found = risks({"evil": caused(parts=parts)})
    assert [(one.layer, one.component) for one in strongest(found, 5)] == [(2, "mlp")]
    by_name = {one.name: one.risk for one in found}
    assert by_name.pop("layer 2 mlp") == pytest.approx(0.6, abs=0.1)
    assert not any(by_name.values())


def test_contrasts_of_one_group_count_once():
    parts = np.full((12, 4, 2), 0.6, np.float32)
    grouped = replace(caused(parts=parts), groups=("a", "b") * 6)
    assert strongest(risks({"evil": grouped}), 5) == []
    assert len(strongest(risks({"evil": caused(parts=parts)}), 99)) == 8
    assert not risks({"evil": replace(grouped, groups=("a",) * 12)})
