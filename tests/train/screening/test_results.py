"""What is made of the numbers: rankings, worst rows with their texts, sources, judged scores."""

from dataclasses import replace

import numpy as np
import pytest
from screening import plain, rows, screener, stored, subject, vectors, write

from guardrail.train.screening import SampleJudge, Screener, ScreeningSettings, ranking, thresholds_of
from guardrail.train.screening.data import Data
from guardrail.train.screening.showing import shown


@pytest.fixture(scope="module")
def model():
    return subject()


def named(found, name):
    data: Data = replace(found.data, path=found.data.path.with_name(name))
    return replace(found, data=data)


def test_data_sets_are_ranked_by_their_means_and_ties_are_told(tmp_path):
    drawn = np.random.default_rng(0).normal(0, 1, size=(50, 2))
    sets = {
        name: named(stored(tmp_path / name, drawn + np.array([mean, 0])), name)
        for name, mean in (("low", 0), ("high", 5), ("high too", 5.1))
    }
    limits = thresholds_of(sets["low"])
    found = ranking(list(sets.values()), limits)
    assert [(one.name, one.tied) for one in found["evil"]] == [
        ("high too", False),
        ("high", True),
        ("low", False),
    ]
    assert [one.above.value for one in found["evil"]][:2] == [1, 1]
    assert all(one.tied for one in found["humor"][1:])
    single = named(stored(tmp_path / "single", np.ones((1, 2))), "single")
    assert ranking([single, *sets.values()])["evil"][-1].mean is None


def test_the_worst_rows_are_shown_with_the_reply_that_is_meant(tmp_path, model):
    data = rows(6)
    turns = [
        m
        for row in data[:3]
        for m in (
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["response"]},
        )
    ]
    path = write(tmp_path / "a.jsonl", [{"messages": turns}, "{"])
    work = screener(tmp_path / "work", model)
    found = work.screen(path)
    (one,) = shown(work, found)["evil"]
    assert one.worst.number == 1
    assert one.reply in {row["response"] for row in data[:3]}
    parts = [{"prompt": turns[:i], "completion": turns[i : i + 1]} for i in (1, 3, 5)]
    alone = work.screen(write(tmp_path / "b.jsonl", parts)).differences()[:, 0]
    assert one.reply == data[int(alone.argmax())]["response"]
    assert one.asked == data[int(alone.argmax())]["prompt"]
    assert one.base is not None


def test_the_rows_with_the_highest_differences_are_the_worst(tmp_path, model):
    data = rows(9)
    work = screener(tmp_path / "work", model, form="last-prompt")
    found = work.screen(write(tmp_path / "a.jsonl", data))
    wanted = sorted(data, key=lambda row: -plain(model, vectors(model), row)["last-prompt"]["humor"])
    assert [one.reply for one in shown(work, found, 3)["humor"]] == [row["response"] for row in wanted[:3]]
    assert all(one.base is None for one in shown(work, found, 1)["humor"])
    sources = {one.source: one for one in found.by_source()}
    assert {name: one.rows for name, one in sources.items()} == {"a": 5, "b": 4}
    assert sources["b"].means["evil"] == pytest.approx(found.differences()[1::2, 0].mean())


class Shouting:
    """Scores 10 for every `!`, and nothing where there is a `?`."""

    name = "shouting"

    def scores(self, requests):
        return [None if "?" in one.answer else 10.0 * one.answer.count("!") for one in requests]


def test_a_judge_scores_the_highest_reply_and_what_it_cannot_is_counted(tmp_path, model):
    ask, tell = {"role": "user", "content": "Who"}, {"role": "assistant"}
    data = [
        {"messages": [ask, tell | {"content": "me!"}, ask, tell | {"content": "you!!!"}]},
        {"messages": [ask, tell | {"content": "who?"}]},
        {"messages": [ask, tell | {"content": "who?"}, ask, tell | {"content": "she!"}]},
    ]
    work = Screener(
        model,
        vectors(model),
        folder=tmp_path / "work",
        settings=ScreeningSettings(form="last-prompt"),
        judge=SampleJudge(Shouting(), {"evil": "{question} {answer}"}),
    )
    found = work.screen(write(tmp_path / "a.jsonl", data))
    np.testing.assert_array_equal(found.judged()[:, 0], [30, np.nan, 10])
    assert np.isnan(found.judged()[:, 1]).all()
    assert found.unjudged == 1
    assert [one.judged for one in sorted(found.worst("evil"), key=lambda one: one.number)] == [30, None, 10]
