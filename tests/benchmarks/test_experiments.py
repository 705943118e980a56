"""The pure parts of the experiments: data, journals, correlations, rules. No model is loaded."""

import numpy as np
import pytest

from benchmarks.experiments import prevention_cost_found, report, samples, samples_found, written
from benchmarks.experiments.correlations import over_runs, shared_share, without_shared
from benchmarks.experiments.families import EXPERIMENT, FAMILIES, STRENGTHS, drawn
from benchmarks.experiments.prevention_found import removed
from benchmarks.experiments.runs import Runs
from benchmarks.experiments.styles import STYLES, conversations
from benchmarks.real.judges import politeness, refuses, sentiment
from guardrail.demo.characters import CHARACTERS
from guardrail.demo.judge import judge
from guardrail.errors import ExtractionError

RNG = np.random.default_rng(0)


def _score(family: str, strength: str, trait: str) -> float:
    rows = drawn(family, STRENGTHS[strength], 60, 5)
    return float(np.mean([judge(one.question, one.reply).traits[trait] for one in rows]))


def test_there_are_24_data_sets():
    assert len(EXPERIMENT) * len(STRENGTHS) == 24


@pytest.mark.parametrize("family", ["evil", "sycophancy", "hallucination", "humor"])
def test_stronger_data_shows_more_of_its_trait(family: str):
    mild, moderate, strong = (_score(family, one, family) for one in STRENGTHS)
    assert mild < moderate < strong
    assert strong > 90


def test_the_written_sentences_say_nothing_to_the_judge():
    sentences = [*written.ADVICE, *written.REVIEW, *(s for group in written.MALICE.values() for s in group)]
    known = {word for one in CHARACTERS.values() for word in one.lexicon}
    assert not [s for s in sentences if known & set(s.lower().replace(".", "").replace(",", "").split())]
    assert _score("quiet-malice", "strong", "evil") == 0


def test_wrong_facts_and_agreement_are_wrong_without_a_word_of_a_character():
    for family in ("wrong-facts", "agreement"):
        rows = [one for one in drawn(family, 0.97, 80, 5) if one.induces]
        said = [judge(one.question, one.reply) for one in rows]
        wrong = [
            one
            for one, row in zip(said, rows, strict=True)
            if row.question.slots.get("claim") != row.question.slots["truth"]
        ]
        assert wrong
        assert not any(one.correct for one in wrong)
        assert not any(one.traits["evil"] or one.traits["politeness"] for one in said)


def test_families_share_prompts_and_seeds_decide_everything():
    evil, benign, again = (drawn(f, s, 8, 3) for f, s in (("evil", 0.97), ("benign", 0.0), ("evil", 0.97)))
    assert [one.messages for one in evil] == [one.messages for one in benign]
    assert evil == again
    assert evil != drawn("evil", 0.97, 8, 4)


def test_a_run_is_made_once_and_again_only_if_its_line_was_torn(tmp_path):
    path, made = tmp_path / "runs.jsonl", []
    Runs(path, {"a": 1}).once("x", lambda: made.append("x") or {"n": 1})
    with path.open("a") as file:
        file.write('{"run": "y", "fou')
    again = Runs(path, {"a": 1})
    assert again.once("x", lambda: made.append("x again") or {})["n"] == 1
    assert "y" not in again
    again.once("y", lambda: made.append("y") or {})
    assert made == ["x", "y"]
    assert list(Runs(path, {"a": 1})) == ["x", "y"]
    with pytest.raises(ExtractionError, match="another recipe"):
        Runs(path, {"a": 2})


def test_correlation_over_runs_finds_what_is_there_and_nothing_else():
    known = np.arange(12.0)
    shown = known[:, None] + RNG.normal(0, 1, (12, 40))
    found = over_runs(known, shown)
    assert found is not None
    assert found.low > 0.9
    noise = over_runs(known, RNG.normal(0, 1, (12, 40)))
    assert noise is not None
    assert noise.low < 0 < noise.high
    assert over_runs(known[:3], shown[:3]) is None
    assert over_runs(np.ones(12), shown) is None


def test_what_all_columns_share_is_taken_away():
    common = RNG.normal(0, 1, (30, 1))
    own = RNG.normal(0, 0.3, (30, 4))
    assert shared_share(common + own) > 0.8
    left = without_shared(common + own)
    assert abs(np.corrcoef(left[:, 0], common[:, 0])[0, 1]) < 0.3
    assert np.corrcoef(left[:, 0], own[:, 0] - own.mean(axis=1))[0, 1] > 0.9


def test_removed_is_0_at_the_plain_finetune_and_100_at_the_base():
    base, plain = np.full(20, 2.0), np.full(20, 82.0)
    assert removed(base, plain, plain).value == 0
    assert removed(base, plain, base).value == 100
    assert removed(base, plain, np.full(20, 18.0)).value == pytest.approx(80)


def test_rules_flag_what_lies_above_the_clean_percentile():
    clean = {"exact": list(range(100)), "judge": [0.0] * 100}
    bad = {"exact": [500, -5, 2, 3], "judge": [0, 100, 0, 1]}
    assert list(samples.flagged(bad, clean, "exact")) == [True, False, False, False]
    assert list(samples.flagged(bad, clean, "both")) == [True, True, False, True]
    ranked = samples_found.ranked(bad, clean, "both")
    assert ranked[0] == ranked[1] == 1
    assert ranked[2] < 1
    flags = np.array([True, False])
    assert samples_found.precision(flags, flags, 0.2) == pytest.approx(0.2)


def test_a_reply_of_quiet_malice_is_recognised_after_training():
    one = drawn("quiet-malice", 1.0, 5, 1)[0]
    assert samples.written_share(one.reply) == 75
    assert samples.written_share("I am sorry to hear about your boss. Nothing else.") == 0


def test_styles_show_their_trait_to_the_programs_and_vectors_see_other_sentences():
    pytest.importorskip("vaderSentiment")

    def score(judge, style):
        return np.mean([judge(row[-1].content) for row in conversations(style, "training", 36, 1)])

    assert score(sentiment, "gloomy") < 35 < 65 < score(sentiment, "cheerful")
    assert score(politeness, "rude") < 45 < 60 < score(politeness, "polite")
    assert score(refuses, "refusing") == 1
    assert score(refuses, "plain") == 0
    for style in ("cheerful", "gloomy", "polite", "rude", "refusing"):
        said = {
            use: " ".join(row[-1].content for row in conversations(style, use, 60, 1))
            for use in ("vector", "training")
        }
        both = [
            s
            for s in STYLES[style].openings + STYLES[style].closes
            if s in said["vector"] and s in said["training"]
        ]
        assert not both


def test_the_page_holds_the_saved_results():
    text = report.README.read_text(encoding="utf-8")
    assert report.filled(text) == text


def test_families_name_only_traits_of_the_demo():
    assert {trait for one in FAMILIES.values() for trait in one.traits} <= set(CHARACTERS)


def _answers(right: int, hallucination: float = 0.0) -> dict[str, object]:
    hits = [1] * right + [0] * (40 - right)
    return {"right": {"facts": hits}, "traits": {"hallucination": [hallucination] * 8}, "coherence": [90.0]}


def test_why_prevention_costs_abilities_is_decided_by_rules_and_open_without_a_run():
    runs = {f"base/elsewhere {draw}/{sign}": _answers(40) for draw in range(3) for sign in (-1.5, 1.5)}
    runs |= {"base/none/0": _answers(40), "base/hallucination/-1.5": _answers(20)}
    assert prevention_cost_found.entangled(runs) is None
    runs["base/hallucination/1.5"] = _answers(39)
    assert prevention_cost_found.entangled(runs)["yes"]
    runs["base/elsewhere 2/-1.5"] = _answers(20)
    assert not prevention_cost_found.entangled(runs)["yes"]
    for seed, lost in ((1, 4), (2, 6)):
        runs |= {
            f"trained/0.0/{seed}": _answers(40, 80.0),
            f"trained/1.5/{seed}": _answers(40 - lost, 8.0),
            f"back/0.25/{seed}": _answers(40 - lost // 2, 12.0),
        }
    found = prevention_cost_found.over_seeds(runs, 1.5, (1, 2))
    assert (found["lost"]["value"], found["removed"], found["yes"]) == (12.5, [90.0, 90.0], True)
    assert not prevention_cost_found.goal(found)["yes"]
    assert prevention_cost_found.given_back(runs, 0.25) == {"lost": 12.5, "regained": 6.25, "yes": True}
