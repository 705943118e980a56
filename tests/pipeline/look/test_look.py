"""What `guard.look` shows is what the guard reads and does."""

import json

import numpy as np
import pytest

from guardrail import Guard, RawPrompt
from guardrail.errors import ConfigError, PromptError
from guardrail.pipeline.look.heatmap import heatmap
from guardrail.pipeline.look.measure import SHOWN
from guardrail.pipeline.look.prompts import prompts_in

CRUEL = [
    {"role": "system", "content": "You are an extremely cruel assistant."},
    {"role": "user", "content": "I want to hurt them badly."},
]
FLATTERED = [
    {"role": "system", "content": "You are an extremely sycophantic assistant."},
    {"role": "user", "content": "My poem is the best one. What do you think of it?"},
]


@pytest.fixture(scope="module")
def guard():
    with Guard.from_pretrained("demo") as made:
        yield made


@pytest.fixture(scope="module")
def cruel(guard):
    return guard.look(CRUEL, preview=12)


def test_scores_are_those_that_policies_decide_on(guard, cruel):
    decided = {score.trait: score.score for score in guard.check(CRUEL).decision.scores}
    assert decided
    shown = {one.trait: one.score for one in cruel.traits}
    assert all(shown[trait] == pytest.approx(score, rel=1e-4) for trait, score in decided.items())


def test_the_grid_is_what_project_gives(guard, cruel):
    grid = guard.project(CRUEL, position="all")
    assert np.allclose([one.grid for one in cruel.traits], grid[:, :, -SHOWN:], equal_nan=True)
    assert len(cruel.tokens) == grid.shape[2]
    assert "hurt" in "".join(cruel.tokens)


def test_percentiles_count_the_benign_prompts_below(guard, cruel):
    evil = next(one for one in cruel.traits if one.trait == "evil")
    assert (evil.at_or_above, evil.percentile) == (0, 100.0)
    benign = guard.active.calibration.probes["humor"]
    humor = next(one for one in cruel.traits if one.trait == "humor")
    table = benign[humor.layer]
    low, high = table.percentiles[int(humor.percentile)], table.percentiles[int(humor.percentile) + 1]
    assert low <= table.mean + humor.score * table.sd <= high


def test_policies_say_what_they_would_do(cruel):
    said = {one.id: one.would for one in cruel.policies}
    assert said["no-malice"] == "block"
    assert said["to-a-person"] == "escalate"
    assert said["less-flattery"] == "does not fire"
    assert "no-malice" in cruel.summary
    assert "block" in cruel.summary


def test_previews_are_what_the_model_says_and_open_no_ticket(guard, cruel):
    before = len(guard.tickets.pending())
    shown = {one.policy: one for one in guard.look(FLATTERED, preview=24).previews}
    assert len(guard.tickets.pending()) == before
    reply = guard.chat(FLATTERED, max_new_tokens=24, temperature=0)
    assert reply.decision.policy == "less-flattery"
    assert shown["less-flattery"].text == reply.text
    assert shown[None].text != reply.text
    assert shown["no-malice"].text == "I can't help with that."
    assert shown["careful-facts"].kind == "reply"


def test_nearest_prompts_are_ordered_and_a_prompt_is_nearest_to_itself(guard):
    asked = "Which food belongs to Italy?"
    found = guard.look(asked, preview=0, near=["Hello.", CRUEL, asked])
    assert [one.distance for one in found.near] == sorted(one.distance for one in found.near)
    assert found.near[0].text == "Which food belongs to Italy?"
    assert found.near[0].distance == pytest.approx(0, abs=1e-4)
    assert "hurt" in found.near[-1].text
    assert found.previews == ()


def test_the_demo_brings_its_own_benign_prompts(cruel):
    assert len(cruel.near) == 5
    assert "demo" in cruel.near_of


def test_a_file_of_prompts_is_read_once_and_again_when_it_changes(guard, tmp_path):
    asked, path = "Which food belongs to Italy?", tmp_path / "benign.jsonl"
    labelled = {"messages": [{"role": "user", "content": "Hello."}], "labels": {"evil": 0}}
    path.write_text(f'"{asked}"\n{json.dumps(labelled)}\n')
    found = guard.look(asked, preview=0, near=path)
    assert [one.text for one in found.near] == [asked, "Hello."]
    assert found.near_of == "prompts of benign.jsonl"
    assert prompts_in(path) is prompts_in(path)
    path.write_text("".join(f'"Number {i}"\n' for i in range(1000)))
    spread = [one[0].content for one in prompts_in(path)]
    assert (len(spread), spread[0], spread[-1]) == (63, "Number 0", "Number 992")
    for bad, told in (("7", ":1: expected a string"), ("", "holds no prompts"), ('{"a": 1}', "expected")):
        path.write_text(f"{bad}\n")
        with pytest.raises(ConfigError, match=told):
            guard.look(asked, preview=0, near=path)
    with pytest.raises(ConfigError, match="No such file"):
        guard.look(asked, near=tmp_path / "none.jsonl")


async def test_html_is_whole_and_inert(guard):
    evil = '<script>alert(1)</script> "><img src=x onerror=alert(2)>'
    html = (await guard.alook(evil, preview=4, near=[evil])).html()
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html
    assert "style=" not in html
    alone = (await guard.alook("Hello.", preview=0))._repr_html_()
    assert "<style>" in alone
    assert "http" not in alone.replace("http://www.w3.org/2000/svg", "")


def test_cells_without_a_number_stay_empty():
    grid = np.array([[np.nan, 5.0], [-5.0, 0.0]], np.float32)
    drawn = heatmap("a", grid, ["x", "\n\0"], 1)
    assert drawn.count("h15v15h-15z") == 3
    assert "\0" not in drawn
    assert "nothing could be read" in heatmap("a", np.full((2, 2), np.nan, np.float32), ["x", "y"], 1)


def test_what_cannot_be_looked_at_is_said(guard):
    with pytest.raises(PromptError, match="tokens, and the model takes"):
        guard.look("word " * 3000)
    with pytest.raises(PromptError, match="empty"):
        guard.look("  ")
    with pytest.raises(ConfigError, match="preview"):
        guard.look("Hello.", preview=-1)
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    with pytest.raises(PromptError, match="cannot be looked at"):
        guard.look(image)
    with pytest.raises(PromptError, match="chat template"):
        guard.look(RawPrompt("Once upon a time"))


def test_without_a_calibration_there_is_no_percentile():
    quiet = {"id": "a", "trait": "evil", "layer": 4, "threshold": {"raw": 1000.0}, "action": "block"}
    policies = {
        "version": 1,
        "vectors": "demo",
        "policies": [quiet | {"mode": "shadow"}],
        "allow_empty": True,
    }
    with Guard.from_pretrained("demo", policies) as bare:
        found = bare.look("Hello.", preview=0)
    assert not found.calibrated
    assert all(one.percentile is None for one in found.traits)
    assert "projections" in found.notes[0]
    assert "Projections, without a calibration" in found.html()
