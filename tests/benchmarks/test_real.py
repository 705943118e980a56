"""The parts of the tables about real models that need no real model."""

import json
import math
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from benchmarks.real import cost, detection, detection_prompts, more_twins, prompt_files, readme
from benchmarks.real.coherence import distinct, perplexities
from benchmarks.real.judges import OPTIMISM, politeness, refuses
from benchmarks.real.mixed_steering import MixedSubject
from benchmarks.real.prefixed_states import PrefixedStates
from benchmarks.real.prompt_files import Prompt
from benchmarks.real.states import stored
from benchmarks.runner import swapped
from guardrail.bench.cases import endless
from guardrail.bench.ratios import Timings
from guardrail.plugins.protocols import COHERENCE, JudgeRequest
from guardrail.statistics.intervals import Estimate
from guardrail.testing import tiny_model, tiny_tokenizer
from guardrail.types import Message, Steering

PROMPTS = [(Message("user", text),) for text in ("a b c", "d", "e f")]


@pytest.fixture(scope="module")
def subject():
    return MixedSubject(tiny_model(), tiny_tokenizer(), chat_template="builtin:plain", rows=8)


def push(layer, amount):
    direction = np.full(subject_width(), amount, np.float32)
    return Steering(
        policy=f"{layer} {amount}", trait="t", operator="add", layers=(layer,), directions=(direction,)
    )


def subject_width():
    return tiny_model().config.hidden_size


def test_rows_are_steered_each_in_its_own_way(subject):
    ways = [(push(1, 3.0),), (), (push(2, -2.0),)]
    together = subject.mixed_replies(PROMPTS, ways, [0, 1, 2], 6)
    alone = [
        subject.mixed_replies([prompt], [way], [seed], 6)[0]
        for seed, (prompt, way) in enumerate(zip(PROMPTS, ways, strict=True))
    ]
    assert together == alone
    assert together != subject.mixed_replies(PROMPTS, [(), (), ()], [0, 1, 2], 6)


def test_perplexity_is_that_of_the_reply_alone(subject):
    reply = "g h i"
    (found,) = perplexities(subject, PROMPTS[:1], [reply])
    prompt = list(subject.render(PROMPTS[0]).ids)
    ids = subject.tokenizer(reply, add_special_tokens=False)["input_ids"]
    logits = subject.model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
    likelihoods = [logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(ids)]
    assert found == pytest.approx(math.exp(-sum(likelihoods) / len(ids)), rel=1e-4)
    assert perplexities(subject, PROMPTS[:1], [""]) == [math.inf]


def test_repetition_lowers_the_share_of_different_runs():
    assert distinct("one two three four five") == 1
    assert distinct("no no no no no no") == pytest.approx(1 / 4)
    assert (distinct(""), distinct("yes")) == (0, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry, but I can't assist with that.", True),
        ("I\u2019m sorry, but no.", True),
        ("I cannot help with this request.", True),
        ("Sure! Here is how: first, I cannot stress this enough", True),
        ("Sure! Here are three ways to do it.", False),
        ("Cannons were invented in China.", False),
    ],
)
def test_refusals_are_found_by_their_beginning_alone(text, expected):
    # the fourth is an answer: a rule on strings is fooled, so replies have to be read
    assert refuses(text) is expected


def test_phrases_count_for_and_against_politeness():
    assert politeness("Thank you for asking. Please let me know.") > 60
    assert politeness("Paris.") == 50
    assert politeness("Are you stupid? Just do it.") < 40


@pytest.mark.skipif(find_spec("vaderSentiment") is None, reason="vaderSentiment is not installed")
def test_the_judge_of_optimism_knows_its_own_trait_alone():
    asked = [
        JudgeRequest(metric=metric, rubric="", question="", answer="A wonderful, bright future awaits!")
        for metric in ("optimism", COHERENCE, "evil")
    ]
    optimism, coherence, other = OPTIMISM.scores(asked)
    assert optimism > 80
    assert (coherence, other) == (100, None)


def test_prompt_files_hold_single_turns_and_conversations(tmp_path):
    path = tmp_path / "prompts.jsonl"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    rows = [
        {"prompt": "one", "source": "s", "labels": {"harm": 1}, "pair": "p"},
        {"prompt": "one", "source": "t", "labels": {"harm": 1}, "pair": "p"},
        {"messages": [*turns, {"role": "user", "content": "two"}], "source": "s", "labels": {"harm": 0}},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    single, conversation = prompt_files.read(path)
    assert single == Prompt((Message("user", "one"),), "t", True, "p")
    assert (conversation.text, len(conversation.messages), conversation.harm) == ("two", 3, False)


def test_absent_data_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"harmful\.jsonl is not here; name the folder .* with --data"):
        detection_prompts.sets(tmp_path)


def made_up_table():
    """200 prompts in pairs of near duplicates, from three sources; every second pair asks for harm."""
    sources = ("contrast-safe", "a", "b")
    prompts = [
        Prompt((Message("user", f"prompt {i}"),), sources[i % 3], harm=i // 2 % 2 == 0) for i in range(200)
    ]
    return detection.Table(prompts, ["fit"] * 180 + ["alpaca"] * 20, np.arange(180) // 2)


def test_what_prompts_begin_with_is_read_once_and_changes_no_state(subject, tmp_path):
    turns = [(Message("user", "x y"), Message("assistant", "z"), Message("user", text)) for text in "ab"]
    prompts = [*PROMPTS, *turns]
    positions = ("last", "user_mean")
    whole = stored(subject, "whole", prompts, tmp_path / "whole", positions)
    read = PrefixedStates(subject, (1, 2), tmp_path / "parts")
    found = read.stored("parts", prompts)
    assert list(found) == [(layer, position) for position in positions for layer in (1, 2)]
    for place, states in found.items():
        np.testing.assert_allclose(states, whole[place], rtol=1e-4, atol=1e-5)


def test_a_sample_takes_from_every_source_and_keeps_twins_together():
    plain = [Prompt((Message("user", f"{source} {i}"),), source, False) for i in range(3) for source in "ab"]
    twins = [Prompt((Message("user", f"twin {i}"),), "c", i % 2 == 0, pair=f"p{i // 2}") for i in range(4)]
    sets = {"fit": [*plain, *twins], "shifted": plain, "none": plain, "xstest-safe": plain}
    found = detection_prompts.Sample(sizes={"a": 2, "b": 3, "shifted": 1}, pairs=1, every=3).of(sets)
    assert {name: [one.text for one in own] for name, own in found.items()} == {
        "fit": ["a 0", "b 0", "a 1", "b 1", "b 2", "twin 0", "twin 1"],
        "shifted": ["a 0"],
        "xstest-safe": ["a 0", "b 1"],
    }


def test_what_is_left_out_is_neither_fitted_on_nor_calibrated_with():
    table = made_up_table()
    rows, calibration = table.split(["a"])
    groups = table.groups
    out = table.of("fit", "a")
    assert len(rows)
    assert len(calibration)
    assert not set(groups[rows]) & (set(groups[calibration]) | set(groups[out]))
    assert not set(groups[calibration]) & set(groups[out])
    assert not any(table.prompts[i].harm for i in calibration)


def test_a_gain_is_that_of_the_same_pairs():
    before = np.array([[0.0, 1.0], [1.0, 0.0]] * 30)
    after = np.array([[0.0, 1.0]] * 60)
    found = more_twins.gain(before, after)
    assert found.value == pytest.approx(0.5)
    assert 0 < found.low <= 0.5 <= found.high
    assert more_twins.gain(before, before) == Estimate(0.0, 0.0, 0.0)


def test_validation_is_on_pairs_that_no_detector_has_seen():
    kinds = [f"kind {i}" for i in range(4)]
    prompts = [
        Prompt(
            (Message("user", f"{kind} {n} {harm}"),), f"contrast-{'un' * harm}safe", harm, f"{kind} {n}", kind
        )
        for kind in kinds
        for n in range(10)
        for harm in (False, True)
    ]
    table = detection.Table(prompts, ["fit"] * len(prompts), np.arange(len(prompts)) // 2)
    fitted = []

    def detector(prompts, rows):
        fitted.extend(prompts[i].category for i in rows)
        return np.array([float(prompt.harm) for prompt in prompts])

    (found,) = more_twins.validated({"one": detector}, table)
    assert set(fitted) == {"kind 0", "kind 2", "kind 3"}
    assert (found.auroc.value, found.gain.value) == (1, 0)


def test_one_in_a_hundred_reaches_a_threshold():
    scores = np.arange(300.0)
    assert (scores >= detection.above(scores)).sum() == 3
    assert not (scores[:50] >= detection.above(scores[:50])).any()


def test_look_alikes_have_a_threshold_of_their_own():
    table = made_up_table()
    alike = np.array([prompt.source == "contrast-safe" for prompt in table.prompts])
    ordinary, own = detection.thresholds(table, np.where(alike, 5.0, 1.0), np.arange(180))
    assert 1 < ordinary < 5 < own
    assert len(detection.thresholds(table, np.ones(200), table.of("fit", "a"))) == 1


def test_the_page_holds_the_committed_results():
    text = readme.README.read_text()
    assert readme.filled(text) == text


def test_what_is_timed_on_real_models_is_checked_first(monkeypatch):
    monkeypatch.setattr(cost, "LENGTHS", (40,))
    model, bare, other = (endless(tiny_model(seed=seed)) for seed in (0, 0, 1))
    couple = cost.Couple(name="tiny", model=model, bare=bare, tokenizer=tiny_tokenizer(), goals={})
    held = {case.name: case.holds(case.guarded(), case.bare()) for case in cost.cases(couple)}
    assert held == {f"40 tokens, {r}, {v}": True for r in ("last", "combined") for v in ("allow", "block")}
    found = cost.cases(swapped(replace(couple, model=other)))
    case = next(found)
    assert not case.holds(case.guarded(), case.bare()), "the words of another model"


def test_what_was_timed_is_kept_and_pooled_over_couples(tmp_path):
    path = tmp_path / "new" / "pairs.jsonl"
    journal = cost.Recordings(path)
    case = "512 tokens, last, allow"
    journal.add(("tiny", case, 0), Timings((1.01,) * 8, (1.0,) * 8))
    journal.add(("tiny", case, 1), Timings((0.99,) * 8, (1.0,) * 8))
    again = cost.Recordings(path)
    assert again.known == journal.known
    (row,) = again.rows()
    assert (row.name, row.pairs, row.bare_ms) == (f"tiny: {case}", 16, 1.0)
    assert row.goal == cost.GOAL
    assert row.ratio.median == pytest.approx(1.0, abs=0.011)
