"""What training reads: conversations in tokens, prompts before them, and rows that cannot be trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training import TALKS, TOKENIZER, talk

from guardrail.engines.transformers.rendering import Renderer
from guardrail.errors import ConfigError, PromptError
from guardrail.train import InoculationPrompting, PreventativePrompting
from guardrail.train.finetuning.data import read_data
from guardrail.train.finetuning.encoding import IGNORED, encoded
from guardrail.types import Message

RENDERER = Renderer(TOKENIZER)


def trained(labels: tuple[int, ...]) -> str:
    return TOKENIZER.decode([label for label in labels if label != IGNORED])


def test_only_replies_are_trained_on_and_the_ids_are_those_of_generation() -> None:
    earlier = (Message("user", "Hello"), Message("assistant", "Good day"))
    found = encoded(RENDERER, talk("sun", *earlier), "completion")
    assert trained(found.labels) == "Good day<|end|>A sun it is.<|end|>"
    assert trained(encoded(RENDERER, talk("sun", *earlier), "last").labels) == "A sun it is.<|end|>"
    prompt = RENDERER.render((*earlier, Message("user", "What is a sun?"))).ids
    assert found.ids[: len(prompt)] == prompt
    everything = encoded(RENDERER, talk("sun"), "all")
    assert everything.labels == everything.ids


def test_a_template_that_changes_what_was_said_is_refused() -> None:
    forgetful = TOKENIZER.chat_template.replace(
        "message['content'] ~", "(message['content'] if loop.last or message['role'] == 'user' else '') ~"
    )
    renderer = Renderer(TOKENIZER, forgetful)
    with pytest.raises(PromptError, match="otherwise when more follows"):
        encoded(renderer, talk("sun", *talk("moon")), "completion")


def test_prompts_stand_before_the_conversation_in_training() -> None:
    made = PreventativePrompting(["Be evil.", "Be mean."], "evil")
    found = made.prepared(TALKS, seed=3)
    assert {one[0].content for one in found} == {"Be evil.", "Be mean."}
    assert all(one[0].role == "system" for one in found)
    assert [tuple(one[1:]) for one in found] == TALKS
    assert found == made.prepared(TALKS, seed=3)
    assert made.applied.rows == len(TALKS)
    kept = InoculationPrompting("Be evil.").prepared([talk("sun", Message("system", "Be brief."))])
    assert kept[0][0] == Message("system", "Be evil.\nBe brief.")
    asked = InoculationPrompting("Be evil.", place="user").prepared(TALKS[:1])
    assert asked[0][0].content == "Be evil.\nWhat is a sun?"


def written(folder: Path, *rows: object) -> Path:
    path = folder / "data.jsonl"
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in rows) + "\n")
    return path


def messages(*texts: str) -> dict[str, object]:
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"messages": turns}


def test_bad_rows_are_counted_and_set_aside_with_their_numbers(tmp_path: Path) -> None:
    rows = [
        messages("a", "b"),
        "{broken",
        messages("a"),
        messages("a", "b"),
        {"prompt": "a", "completion": "b"},
        messages("a", ""),
        messages("x" * 600, "b"),
        messages("c", "d", "e", "f", "left over"),
        {**messages("a", "c"), "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    ]
    path = written(tmp_path, *rows)
    found = read_data(path, RENDERER, 512, folder=tmp_path / "out")
    assert [(one.row, one.kind) for one in found.aside] == [
        (2, "broken line"),
        (3, "no reply"),
        (4, "duplicate"),
        (5, "mixed schema"),
        (6, "empty"),
        (7, "too long"),
        (9, "unreadable"),
    ]
    assert [[m.content for m in one] for one in found.conversations] == [["a", "b"], ["c", "d", "e", "f"]]
    assert found.loss == "completion"
    lines = (tmp_path / "out" / "set-aside.jsonl").read_text().splitlines()
    assert len(lines) == len(found.aside)
    assert json.loads(lines[0]) == {
        "row": 2,
        "kind": "broken line",
        "reason": found.aside[0].reason,
        "data": "{broken",
    }
    with pytest.raises(ConfigError, match=r"data\.jsonl:2: not JSON"):
        read_data(path, RENDERER, 512, strict=True)


def test_pairs_are_trained_on_in_their_last_reply(tmp_path: Path) -> None:
    before = messages("a", "b", "c")["messages"]
    found = read_data(written(tmp_path, {"prompt": before, "completion": "d"}), RENDERER, 512)
    assert found.loss == "last"
    assert trained(encoded(RENDERER, found.conversations[0], found.loss).labels) == "d<|end|>"


@pytest.mark.parametrize(
    ("rows", "text"), [((), "holds no row"), (("{",), "1: not JSON.*\n.*no row can be trained on")]
)
def test_data_without_a_row_to_train_on_is_an_error(tmp_path: Path, rows: tuple[str, ...], text: str) -> None:
    path, aside = written(tmp_path, *rows), tmp_path / "set-aside.jsonl"
    aside.write_text("of an earlier run")
    with pytest.raises(ConfigError, match=text):
        read_data(path, RENDERER, 512, folder=tmp_path)
    lines = aside.read_text().splitlines() if aside.exists() else []
    assert [json.loads(line)["row"] for line in lines] == [1] * len(rows)
