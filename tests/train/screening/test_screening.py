"""Projection differences: the formulas, exactness, bad rows, resuming, subsets."""

import os
import re
import signal
import sqlite3
import time
from contextlib import closing, suppress

import numpy as np
import pytest
from screening import TRAITS, plain, rows, screener, subject, vectors, write

from guardrail.errors import ConfigError, VectorError
from guardrail.train.screening import Screener
from guardrail.train.screening import data as chunked
from guardrail.train.screening.screening import REPLIES
from guardrail.types import Message


@pytest.fixture(scope="module")
def model():
    return subject()


def test_both_forms_are_those_of_the_plain_loop(tmp_path, model):
    data = rows(7)
    found = screener(tmp_path / "work", model).screen(write(tmp_path / "a.jsonl", data))
    for form in ("exact", "last-prompt"):
        wanted = [[plain(model, vectors(model), row)[form][trait] for trait in TRAITS] for row in data]
        np.testing.assert_allclose(found.differences(form), wanted, rtol=1e-4, atol=1e-5)
    assert found.means["evil"].value == pytest.approx(found.differences()[:, 0].mean())
    assert found.cost.replies == 7
    assert found.cost.read_tokens > 0
    cheap = screener(tmp_path / "cheap", model, form="last-prompt").screen(tmp_path / "a.jsonl")
    np.testing.assert_allclose(cheap.differences(), found.differences("last-prompt"), rtol=1e-4, atol=1e-5)
    assert cheap.cost.replies == 0
    with pytest.raises(ConfigError, match="not measured in the form `exact`"):
        cheap.differences("exact")


def test_a_reply_that_the_base_gives_itself_has_a_difference_of_zero(tmp_path, model):
    asked = [row["prompt"] for row in rows(4)]
    own = model.replies(
        [[Message("user", one)] for one in asked], seeds=range(4), max_new_tokens=6, temperature=0
    )
    data = [{"prompt": p, "response": r.text} for p, r in zip(asked, own, strict=True) if r.text.strip()]
    found = screener(tmp_path / "work", model).screen(write(tmp_path / "a.jsonl", [*data, rows(1)[0]]))
    differences = found.differences()
    assert len(differences) > 2
    assert not differences[:-1].any()
    assert differences[-1].all()


def test_nothing_depends_on_the_batch_or_on_the_order_of_rows(tmp_path, model):
    data = rows(12)
    write(tmp_path / "a.jsonl", data)
    write(tmp_path / "b.jsonl", data[::-1])
    found = screener(tmp_path / "one", model).screen(tmp_path / "a.jsonl").differences()
    other = screener(tmp_path / "two", subject(rows=1)).screen(tmp_path / "b.jsonl").differences()
    np.testing.assert_allclose(found, other[::-1], rtol=1e-4, atol=1e-5)


def test_a_row_of_several_replies_scores_as_the_highest(tmp_path, model):
    turns = [(row["prompt"], row["response"]) for row in rows(3)]
    whole = [
        m for p, r in turns for m in ({"role": "user", "content": p}, {"role": "assistant", "content": r})
    ]
    parts = [{"messages": whole[: 2 * i]} for i in (1, 2, 3)]
    alone = [{"prompt": one["messages"][:-1], "completion": one["messages"][-1:]} for one in parts]
    work = screener(tmp_path / "work", model)
    found = work.screen(write(tmp_path / "a.jsonl", parts[2:])).differences()
    each = work.screen(write(tmp_path / "b.jsonl", alone)).differences()
    np.testing.assert_allclose(found[0], each.max(axis=0), rtol=1e-4, atol=1e-5)


BAD = [
    rows(1)[0],
    "{",
    "",
    {"prompt": "no reply here"},
    {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
    {"prompt": "empty", "response": ""},
    {"prompt": "long", "response": "x" * 600},
    rows(1)[0] | {"source": "elsewhere"},
    rows(2)[1],
    {"prompt": "y" * 504, "response": "z"},
]


def test_every_bad_row_is_reported_with_its_number_and_counted(tmp_path, model, monkeypatch):
    write(tmp_path / "a.jsonl", BAD)
    for size in (1024, 2):
        monkeypatch.setattr(chunked, "CHUNK", size)
        found = screener(tmp_path / str(size), model).screen(tmp_path / "a.jsonl")
        assert found.numbers == [1, 9]
        problems = [(number, kind) for number, kind, _ in found.store.problems()]
        assert problems == [
            (2, "broken line"),
            (4, "no reply"),
            (5, "mixed schema"),
            (6, "empty"),
            (7, "too long"),
            (8, "duplicate"),
            (10, "too long"),
        ]
        assert found.counts.measured == 2
        assert found.counts.aside["too long"] == 2
        said = {number: reason for number, _, reason in found.store.problems()}
        assert said[5] == "has `messages`, where earlier rows have `prompt` and `response`"
        assert said[8] == "the same prompts and replies as row 1"
        assert "no room for 6 tokens of the model's own reply" in said[10]


def test_strict_names_every_bad_row_before_anything_is_measured(tmp_path, model):
    write(tmp_path / "a.jsonl", BAD)
    with pytest.raises(ConfigError) as caught:
        screener(tmp_path / "work", model, strict=True).screen(tmp_path / "a.jsonl")
    for number in (2, 4, 5, 6, 7, 8, 10):
        assert f"a.jsonl:{number}: " in str(caught.value)
    numbers = [int(one) for one in re.findall(r"a\.jsonl:(\d+): ", str(caught.value))]
    assert numbers == sorted(numbers)
    assert not (tmp_path / "work").exists()


def test_a_limit_of_tokens_is_kept(tmp_path, model):
    write(tmp_path / "a.jsonl", [*rows(2), {"prompt": "x", "response": "y" * 60}])
    found = screener(tmp_path / "work", model, longest=50).screen(tmp_path / "a.jsonl")
    (problem,) = found.store.problems()
    assert problem[:2] == (3, "too long")
    assert "at most 50 are allowed" in problem[2]


def test_vectors_of_another_model_are_refused_unless_allowed(tmp_path, model):
    other = subject(seed=1)
    with pytest.raises(VectorError, match="made for another model"):
        Screener(other, vectors(model), folder=tmp_path)
    Screener(other, vectors(model), folder=tmp_path, allow_model_mismatch=True)
    with pytest.raises(VectorError, match="made for a model of"):
        Screener(subject(layers=2), vectors(model), folder=tmp_path, allow_model_mismatch=True)


def test_unknown_traits_and_layers_are_refused(tmp_path, model):
    for wrong, said in (({"traits": ["evli"]}, "did you mean"), ({"layers": 9}, "layer 9 is not usable")):
        with pytest.raises(ConfigError, match=said):
            Screener(model, vectors(model), folder=tmp_path, **wrong)
    made = Screener(model, vectors(model), folder=tmp_path, layers={"evil": 4})
    assert [one.layer for one in made.directions] == [4, TRAITS["humor"]]


def test_replies_are_generated_once_for_all_data_of_a_folder(tmp_path, model):
    one = screener(tmp_path / "work", model).screen(write(tmp_path / "a.jsonl", rows(6)))
    other = [row | {"response": "something else"} for row in rows(6)]
    two = screener(tmp_path / "work", model).screen(write(tmp_path / "b.jsonl", other))
    assert (one.cost.replies, two.cost.replies) == (6, 0)


def test_a_subset_estimates_the_mean_and_does_not_depend_on_the_order(tmp_path, model):
    data = rows(60)
    write(tmp_path / "a.jsonl", data)
    write(tmp_path / "b.jsonl", data[::-1])
    whole = screener(tmp_path / "all", model, form="last-prompt").screen(tmp_path / "a.jsonl")
    parts = [
        screener(tmp_path / "part", model, form="last-prompt", subset=20).screen(tmp_path / name)
        for name in ("a.jsonl", "b.jsonl")
    ]
    assert [part.counts.measured for part in parts] == [20, 20]
    assert sorted(parts[0].numbers) == sorted(61 - n for n in parts[1].numbers)
    mean = parts[0].means["evil"]
    assert mean.low < whole.means["evil"].value < mean.high
    other = screener(tmp_path / "part", model, form="last-prompt", subset=20, seed=1).screen(
        tmp_path / "a.jsonl"
    )
    assert other.numbers != parts[0].numbers


@pytest.mark.slow
def test_after_a_kill_the_same_rows_come_out(tmp_path, monkeypatch, processes):
    """kill -9 in the middle of chunks, and a last run that ends."""
    data = write(tmp_path / "a.jsonl", [*rows(40), "{", rows(1)[0]])
    monkeypatch.setattr(chunked, "CHUNK", 8)
    work = screener(tmp_path / "work", subject(rows=4))
    script = (
        "import screening\nfrom guardrail.train.screening import data\ndata.CHUNK = 8\n"
        f"screening.screen_in_a_process({str(work.folder)!r}, {str(data)!r})"
    )
    for replies in (3, 18):
        with processes.start(script) as running:
            deadline = time.monotonic() + 60
            while generated(work.folder) < replies and time.monotonic() < deadline:
                time.sleep(0.001)
            os.kill(running.pid, signal.SIGKILL)
            running.end()
        assert replies <= generated(work.folder) < 40
    killed = work.screen(data)
    whole = screener(tmp_path / "undisturbed", subject(rows=4)).screen(data)
    query = "SELECT * FROM rows ORDER BY number"
    assert killed.store.rows(query) == whole.store.rows(query)
    assert killed.counts.measured == 40


def generated(folder):
    """The base's replies on disk."""
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"file:{folder / REPLIES}?mode=ro", uri=True)) as file,
    ):
        return file.execute("SELECT count(*) FROM replies").fetchone()[0]
    return 0
