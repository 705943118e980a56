"""Thresholds by a clean set: rates on fresh clean rows, both rules, a judge beside, weights, files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from screening import stored, write

from guardrail.errors import ConfigError
from guardrail.train.screening import Thresholds, thresholds_of
from guardrail.train.screening import write as write_files


def drawn(count, seed, shift=0.0):
    """Differences of two traits."""
    return np.random.default_rng(seed).normal(shift, (1.0, 3.0), size=(count, 2))


@pytest.mark.parametrize("rule", ["percentile", "conformal"])
def test_five_percent_of_fresh_clean_rows_are_above(tmp_path, rule):
    made = thresholds_of(stored(tmp_path / "clean", drawn(1000, 1)), rule=rule)
    fresh = stored(tmp_path / "fresh", drawn(1000, 2))
    for share in made.above(fresh).values():
        assert share.low <= 0.05 <= share.high
    assert made.rate.low < 0.05 < made.rate.high
    # the threshold is that of the whole of the clean set
    values = np.sort(drawn(1000, 1)[:, 0])
    wanted = np.percentile(values, 95) if rule == "percentile" else values[950]
    assert made.traits["evil"].difference == pytest.approx(wanted, rel=1e-6)


def test_a_conformal_threshold_keeps_its_rate_over_many_clean_sets(tmp_path):
    """n = 39 and 10 %: the rank is 36, and the expected share above it is exactly 4 / 40."""
    shares = []
    for seed in range(12):
        made = thresholds_of(stored(tmp_path / f"{seed}", drawn(39, seed)), share=0.1, rule="conformal")
        shares.append((drawn(4000, 1000 + seed)[:, 0] > made.traits["evil"].difference).mean())
    mean, error = np.mean(shares), np.std(shares) / np.sqrt(len(shares))
    assert abs(mean - 0.1) < 3 * error


def test_either_of_two_scores_rejects_five_percent_of_clean_rows_together(tmp_path):
    rng = np.random.default_rng(3)
    judged = rng.uniform(0, 100, size=(2000, 2))
    judged[:3, 0] = np.nan
    clean = stored(tmp_path / "clean", drawn(2000, 1), judged)
    for rule in ("percentile", "conformal"):
        made = thresholds_of(clean, rule=rule)
        for share in made.above(clean).values():
            assert 0.048 < share.value <= 0.05
    fresh = stored(tmp_path / "fresh", drawn(2000, 2), rng.uniform(0, 100, size=(2000, 2)))
    above = made.above(fresh)["evil"]
    assert above.low <= 0.05 <= above.high
    # the two are about equally strict
    one = made.traits["evil"]
    shares = (drawn(2000, 2)[:, 0] > one.difference).mean(), 1 - one.judge / 100
    assert shares == pytest.approx((0.025, 0.025), abs=0.012)


def test_a_judge_with_few_different_scores_rejects_what_is_above_them(tmp_path):
    clean = stored(tmp_path / "clean", drawn(200, 1), np.zeros((200, 2)))
    made = thresholds_of(clean)
    assert made.traits["evil"].judge == 0
    assert made.above(clean)["evil"].value == 0.05
    found = stored(tmp_path / "data", np.zeros((3, 2)), np.array([[0, 0], [50, 0], [np.nan, np.nan]]))
    assert made.rejected(found).value == pytest.approx(1 / 3)


def test_weights_fall_with_the_part_of_the_clean_tail_that_is_as_high(tmp_path):
    made = thresholds_of(stored(tmp_path / "clean", np.arange(100.0)[:, None] * np.ones(2)))
    one = made.traits["evil"]
    assert one.difference == pytest.approx(94.05)
    assert one.tail == (95, 96, 97, 98, 99)
    weights = one.weights(np.array([-5, 94, 95, 97.5, 99, 1000]), np.full(6, np.nan))
    assert weights == pytest.approx([1, 1, 1, 3 / 6, 2 / 6, 1 / 6])
    both = replace(one, judge=10.0, judge_tail=(20.0, 30.0, 40.0))
    weights = both.weights(np.zeros(3), np.array([5, 35, np.nan]))
    assert weights == pytest.approx([1, 2 / 4, 1])


def test_too_few_clean_rows_and_impossible_shares_are_refused(tmp_path):
    clean = stored(tmp_path / "clean", drawn(18, 1))
    with pytest.raises(ConfigError, match=r"18 clean rows are too few .* it takes 19"):
        thresholds_of(clean)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        thresholds_of(clean, share=1.0)


def test_thresholds_are_kept_in_a_file_and_fit_only_what_they_are_about(tmp_path):
    clean = stored(tmp_path / "clean", drawn(100, 1))
    made = thresholds_of(clean)
    made.save(tmp_path / "limits.json")
    assert Thresholds.load(tmp_path / "limits.json") == made
    for changed, said in (
        ({"form": "last-prompt"}, "for the form `exact`, not `last-prompt`"),
        ({"vectors_sha256": "other"}, "other vectors"),
        (
            {"directions": [replace(clean.directions[0], layer=4)]},
            "`evil`: the threshold is for layer 2, not for 4",
        ),
        ({"directions": [replace(clean.directions[0], trait="apathy")]}, "no threshold for `apathy`"),
    ):
        with pytest.raises(ConfigError, match=said):
            made.above(replace(clean, **changed))
    (tmp_path / "wrong.json").write_text('{"traits": {}}')
    with pytest.raises(ConfigError, match="no thresholds of"):
        Thresholds.load(tmp_path / "wrong.json")


def test_files_hold_every_row_in_exactly_one_place(tmp_path):
    made = thresholds_of(stored(tmp_path / "clean", drawn(100, 1)))
    values = np.array([[0, 0], [9, 0], [0, 50], [1, 1]])
    problems = {5: ("broken line", "not JSON")}
    lines = [f'{{"prompt": "{i}",  "response": "é"}}' for i in range(4)] + ['{"broken']
    data = write(tmp_path / "data.jsonl", lines)
    found = stored(tmp_path / "data", values, problems=problems, data=data)
    out = tmp_path / "out"
    written = write_files(found, out, made)
    assert (written.kept, written.rejected) == (2, 2)
    assert (out / "kept.jsonl").read_text().splitlines() == [lines[0], lines[3]]
    assert (out / "rejected.jsonl").read_text().splitlines() == lines[1:3]
    (aside,) = map(json.loads, (out / "set-aside.jsonl").read_text().splitlines())
    assert aside == {"row": 5, "kind": "broken line", "reason": "not JSON", "data": '{"broken'}
    scores = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert [(one["row"], one["verdict"]) for one in scores] == [
        (1, "kept"),
        (2, "rejected"),
        (3, "rejected"),
        (4, "kept"),
    ]
    assert scores[1]["difference"] == {"evil": 9, "humor": 0}
    assert [one["above"] for one in scores] == [[], ["evil"], ["humor"], []]
    assert [one["weight"] for one in scores] == [1, round(1 / 6, 4), round(1 / 6, 4), 1]
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in written.files.values())
    for limits, one in ((None, found), (made, replace(found, subset=4))):
        plain = write_files(one, tmp_path / "plain", limits)
        assert sorted(plain.files) == ["aside", "scores"]
        assert "verdict" not in json.loads((tmp_path / "plain" / "scores.jsonl").read_text().splitlines()[0])
