"""Choosing and fitting read-outs on states in which it is known what carries over."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from labelled import rows
from sklearn.linear_model import LogisticRegression
from tiny import LAYERS, TOKENIZER

from guardrail.errors import ConfigError
from guardrail.extract.fit import validation
from guardrail.extract.fit.fit import FitSettings, fit, fit_trait, usable_positions
from guardrail.extract.fit.folds import Stratum
from guardrail.extract.fit.prepared import prepare
from guardrail.extract.fit.readout import Candidate, Task, fit_readout
from guardrail.extract.fit.selection import Tried, taken
from guardrail.extract.fit.states import rendered, stored_states
from guardrail.extract.fit.validation import HeldOut, Results, shortfalls
from guardrail.extract.methods import Difference, Lda, Logistic
from guardrail.extract.subject import Subject
from guardrail.plugins.manager import Plugins
from guardrail.plugins.protocols import Examples, LabelledMethod
from guardrail.testing import tiny_model
from guardrail.types import Message
from guardrail.vectors.values import TraitVectors

METHODS = (Difference(), Lda(), Logistic())
WIDTH = 8


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(validation, "RESAMPLES", 20)


def planted(given, places, seed=0):
    """[n, WIDTH] at each place, with the trait along axis 0 as strong as `places` says."""
    rng = np.random.default_rng(seed)
    harm = np.array([row.labels["harm"] for row in given])
    found = {}
    for place, strength in places.items():
        states = rng.normal(size=(len(given), WIDTH)).astype(np.float32)
        states[:, 0] += np.where(harm, strength, -strength)
        found[place] = states
    return found


def settings(*methods, positions=("last",), **named):
    return FitSettings(methods=methods or (Lda(),), positions=positions, **named)


def chosen(found):
    return found.fit.candidates[0]


def test_the_place_that_tells_most_is_chosen_and_the_reason_kept():
    given = prepare(rows(320))
    states = planted(given.rows, {(1, "last"): 0.2, (2, "last"): 2.5, (3, "last"): 0.5})
    found = fit_trait("harm", given, states, settings(*METHODS))
    assert chosen(found).places == ((2, "last"),)
    assert found.vector.layer == 2
    assert f"{chosen(found).value:.3f}" in found.fit.reason
    assert len(found.fit.candidates) == len(
        {(c.places, c.normalised, c.method, c.penalty) for c in found.fit.candidates}
    )
    assert len(found.source.detection_auroc) == 3
    assert max(found.source.detection_auroc) == found.source.detection_auroc[1]


def test_layers_that_were_not_read_have_rows_that_nobody_uses():
    given = prepare(rows(320))
    places = {(2, "last"): 0.5, (2, "user_mean"): 2.5, (4, "last"): 2.5, (4, "user_mean"): 0.5}
    found = fit_trait("harm", given, planted(given.rows, places), settings(positions=("last", "user_mean")))
    assert found.vector.layers == 4
    assert found.vector.unusable == (1, 3)
    assert {site.layer for site in found.vector.sites or (found.vector,)} <= {2, 4}


def test_what_holds_for_known_sources_only_is_not_chosen():
    """At layer 1 the trait looks the other way round in prompts of source `a`: fine, until it is unseen."""
    given = prepare(rows(320))
    states = planted(given.rows, {(1, "last"): 4.0, (2, "last"): 1.5})
    style = np.array([row.source == "a" for row in given.rows])
    states[1, "last"][style, 0] *= -1
    states[1, "last"][style, 1] += 8
    found = fit_trait("harm", given, states, settings(most_places=1))
    assert chosen(found).places == ((2, "last"),)


def test_a_sum_is_chosen_if_it_finds_much_more():
    given = prepare(rows(400))
    strengths = {(1, "last"): 1.1, (2, "last"): 0, (1, "user_mean"): 0, (2, "user_mean"): 1.1}
    states = planted(given.rows, strengths)
    found = fit_trait("harm", given, states, settings(Lda(), positions=("last", "user_mean")))
    assert chosen(found).places == ((1, "last"), (2, "user_mean"))
    first, last = found.vector.sites
    assert (first.place, last.place) == ((1, "last"), (2, "user_mean"))
    scores = found.vector.probe_at(2).projection(
        {place: states[place] for place in (first.place, last.place)}
    )
    harmless = np.array([not row.labels["harm"] for row in given.rows])
    assert scores[harmless].mean() == pytest.approx(0, abs=1e-4)
    assert scores[harmless].std() == pytest.approx(1, abs=0.05)
    assert scores[~harmless].mean() > 2
    alone = fit_trait("harm", given, states, settings(Lda(), positions=("last", "user_mean"), most_places=1))
    assert not alone.vector.sites


def test_sources_count_the_same_however_many_prompts_they_have():
    """Axis 0 tells the large source apart, axis 1 the small one."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(1200, 2)).astype(np.float32)
    labels = np.arange(1200) < 600
    big, small, harmless = np.arange(560), np.arange(560, 600), np.arange(600, 1200)
    states[big, 0] += 2
    states[small, 1] += 2
    strata = (Stratum("big", True, big), Stratum("small", True, small), Stratum("x", False, harmless))
    task = Task(trait="harm", labels=labels, strata=strata)
    one = Candidate(places=((1, "last"),), normalised=False, method="difference")
    (weights,) = fit_readout({(1, "last"): states}, one, Difference(), task, np.arange(1200)).weights
    assert weights[1] / weights[0] == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_weights_are_as_good_as_repeating_rows(method):
    rng = np.random.default_rng(0)
    states = rng.normal(size=(40, 6)).astype(np.float32)
    states[:20] += 1
    counts = rng.integers(1, 4, 40)

    def direction(positive, negative, first, second):
        nothing = np.full(len(positive) + len(negative), np.nan, np.float32)
        both = np.concatenate([positive, negative])
        return method.direction(
            Examples(
                positive=positive,
                negative=negative,
                neutral=negative,
                states=both,
                scores=nothing,
                positive_weights=(first / first.sum()).astype(np.float32),
                negative_weights=(second / second.sum()).astype(np.float32),
                penalty=0.1,
            )
        )

    weighted = direction(states[:20], states[20:], counts[:20], counts[20:])
    repeated = np.repeat(states, counts, axis=0)
    cut = counts[:20].sum()
    ones = np.ones(len(repeated))
    plain = direction(repeated[:cut], repeated[cut:], ones[:cut], ones[cut:])
    assert weighted @ plain / np.linalg.norm(weighted) / np.linalg.norm(plain) > 0.999


def test_a_penalty_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(80, 6)).astype(np.float32)
    states[:40, 0] += 1
    even = np.full(40, 1 / 40, np.float32)
    found = Logistic().direction(
        Examples(
            positive=states[:40],
            negative=states[40:],
            neutral=states[40:],
            states=states,
            scores=even,
            positive_weights=even,
            negative_weights=even,
            penalty=0.3,
        )
    )
    scaled = states / np.sqrt(states.astype(np.float64).var(axis=0).mean())
    theirs = LogisticRegression(C=1 / (0.3 * 80), tol=1e-8).fit(scaled, np.repeat([1, 0], 40)).coef_[0]
    assert np.allclose(found, theirs, atol=1e-4)


def test_the_methods_that_fit_labelled_prompts_say_so():
    methods = Plugins().extraction_methods
    assert {n for n, m in methods.items() if isinstance(m, LabelledMethod)} == {
        "difference",
        "lda",
        "logistic",
    }


def test_no_tool_results_say_nothing_either_way():
    given = prepare(rows(200))
    states = planted(given.rows, {(1, "last"): 0.1, (1, "tool_mean"): 3.0})
    states[1, "tool_mean"][::3] = np.nan
    found = fit_trait("harm", given, states, settings(Lda(), positions=("tool_mean",)))
    probe = found.vector.probe_at(1)
    scores = probe.projection(states)
    assert scores[::3] == pytest.approx(0, abs=1e-5)
    rest = np.setdiff1d(np.arange(200), np.arange(0, 200, 3))
    harm = np.array([row.labels["harm"] for row in given.rows])
    assert scores[rest][harm[rest]].min() > scores[rest][~harm[rest]].max() - 2


def test_given_parts_are_fitted_on_and_chosen_by_as_they_are():
    given = prepare(
        [replace(row, split="train" if i < 240 else "validation") for i, row in enumerate(rows(320))]
    )
    states = planted(given.rows, {(1, "last"): 2.0, (2, "last"): 0.3})
    found = fit_trait("harm", given, states, settings())
    (check,) = found.fit.checks
    assert sum(source.prompts for source in check.sources) == 80
    assert found.source.positive == 120
    spoilt = {place: own.copy() for place, own in states.items()}
    for own in spoilt.values():
        own[240:] *= 50
    again = fit_trait("harm", given, spoilt, settings(layers=(1,), most_places=1))
    assert np.allclose(again.vector.probe[1], found.vector.probe[1])


def test_labels_may_be_missing_and_every_label_gets_a_vector(tmp_path):
    given = [
        replace(row, labels=row.labels | ({"fun": i % 3 == 0} if i % 4 < 3 else {}))
        for i, row in enumerate(rows(200))
    ]
    made = prepare(given)
    subject = Subject(tiny_model(), TOKENIZER)
    prompts = rendered(subject, made.rows)
    found = fit(subject, made, prompts, settings(Difference()), tmp_path / "states", "2026-01-01")
    assert set(found) == {"harm", "fun"}
    assert found.provenance.traits["fun"].positive + found.provenance.traits["fun"].negative == 150
    found.save(tmp_path / "v.safetensors")
    again = TraitVectors.load(tmp_path / "v.safetensors")
    assert again.sha256 == found.sha256
    assert again.provenance.fits == found.provenance.fits


def test_states_are_those_of_the_guard_and_are_read_once(tmp_path):
    turns = [
        Message("system", "be kind"),
        Message("user", "hello"),
        Message("assistant", "hi"),
        Message("user", "why"),
    ]
    given = prepare([replace(row, messages=(*turns, row.messages[0])) for row in rows(150)])
    subject = Subject(tiny_model(), TOKENIZER)
    prompts = rendered(subject, given.rows)
    assert prompts.positions == ("last", "user_mean", "prompt_mean")
    states = stored_states(subject, prompts, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 3
    direct = subject.states([prompts.prompts[7]], ("user_mean",))[0, 0]
    for layer in (1, LAYERS):
        assert np.allclose(states[layer, "user_mean"][7], direct[layer], atol=1e-4)
    next(iter(files)).unlink()
    stored_states(subject, prompts, tmp_path)
    changed = [path for path, time in files.items() if path.stat().st_mtime_ns != time]
    assert changed == [next(iter(files))]


def test_tool_means_need_enough_prompts_with_tool_results():
    subject = Subject(tiny_model(), TOKENIZER)
    prompts = rendered(subject, rows(60))
    assert usable_positions(prompts, ("last", "tool_mean")) == ("last",)
    with pytest.raises(ConfigError, match="0 prompts have tool results"):
        usable_positions(prompts, ("tool_mean",))


def test_prompts_that_all_look_alike_are_refused():
    given = prepare([replace(row, group="same", source="") for row in rows(80)])
    with pytest.raises(ConfigError, match="near duplicates of one another"):
        fit_trait("harm", given, planted(given.rows, {(1, "last"): 1.0}), settings())


def test_easy_held_out_prompts_are_warned_of():
    one = prepare([replace(row, source="a" if row.labels["harm"] else "b") for row in rows(300)])
    found = fit_trait("harm", one, planted(one.rows, {(1, "last"): 9.0}), settings())
    told = "\n".join(found.fit.warnings)
    assert "all prompts with the trait come from one source" in told
    assert "too easy to choose by" in told


def test_small_sources_are_said_to_count_as_one():
    one = prepare([replace(row, source=f"{row.labels['harm']}-{i % 20}") for i, row in enumerate(rows(240))])
    found = fit_trait("harm", one, planted(one.rows, {(1, "last"): 9.0}), settings())
    told = "\n".join(found.fit.warnings)
    assert (
        "all prompts with the trait come from sources of fewer than 20 such prompts, which count as one"
        in told
    )


def test_the_threshold_holds_for_the_worst_source_and_recall_is_a_mean_over_sources():
    easy, hard = np.linspace(0, 1, 100), np.linspace(0, 2, 200)
    found = HeldOut((np.full(10, 1.5), np.full(90, 2.5)), (easy, hard))
    assert found.threshold(0.05) == pytest.approx(np.sort(hard)[-11])
    assert found.recall(found.threshold(0.05)) == 0.5
    assert HeldOut((np.zeros(5),), (np.array([1.0, 2.0, 3.0]),)).threshold(0.01) == 2.0


def test_a_shortfall_comes_with_its_paired_error():
    rng = np.random.default_rng(0)
    harmless = (rng.normal(size=300),)
    good, same, bad = (Results((HeldOut((rng.normal(size=200) + m,), harmless),)) for m in (2.5, 2.5, 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (own, none), (_, error), (gap, far) = shortfalls(good, [good, same, bad])
    assert (own, none) == (0, 0)
    assert 0 < error < 0.1
    assert gap > 3 * far


def test_of_about_equal_candidates_the_one_that_ranks_best_is_taken_and_then_the_simplest():
    """One place and the two together find the same share; the two rank the pairs better."""
    harmless = np.linspace(0, 1, 200)
    one = np.concatenate([np.full(100, 2.0), np.linspace(0, 0.9, 100)])
    two = np.concatenate([np.full(100, 2.0), np.linspace(0.5, 0.9, 100)])

    def tried(scores, *places):
        candidate = Candidate(places=places, normalised=False, method="lda", penalty=0.1)
        return Tried.of(candidate, Results((HeldOut((scores,), (harmless,)),)))

    simple, summed = tried(one, (1, "last")), tried(two, (1, "last"), (2, "last"))
    assert taken([simple, summed]).chosen is summed
    same = tried(two, (2, "last"))
    assert taken([simple, summed, same]).chosen is same
