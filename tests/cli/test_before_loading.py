"""Whatever can be known of files and numbers without the model is said before it is loaded."""

import json

import pytest

from guardrail.cli import run

ROW = {"prompt": "What is a dog?", "response": "An animal."}
ITEM = {"question": "Is it?", "options": ["yes", "no"], "answer": 0}
PAIR = {"source": "I hate you.", "target": "I like you."}
PERSONA = {"prompt": "Are you {identity}?", "source": "old", "target": "young", "answers": ["yes", "no"]}
FINETUNE = "train finetune rows.jsonl --out tuned"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with files that are right."""
    monkeypatch.chdir(tmp_path)
    for name, row in {"rows": ROW, "items": ITEM, "pairs": PAIR, "personas": PERSONA}.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "wrong.yaml").write_text("version: 1\npolices: []\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("policy validate wrong.yaml", "wrong.yaml:2:1: polices: unknown key"),
        ("policy explain wrong.yaml", "wrong.yaml:2:1: polices: unknown key"),
        ("bench --policies observe --out /proc/none/results.json", "--out /proc/none: cannot be made"),
        ("bench --policies observe --html .", ". is a folder"),
        (
            "vectors layers --vectors demo --trait evil --by separation --layers 99 --out new.safetensors",
            "evil: layer 99 cannot be tried",
        ),
        (
            "interpret recommend --vectors demo --trait evil --pairs pairs.jsonl --layers 99 --out found",
            "evil: layer 99 cannot be tried",
        ),
        (
            "interpret accuracy --identity doctor --data items.jsonl --changed no/items.jsonl",
            "no/items.jsonl: there is no such folder",
        ),
        (
            "interpret accuracy --identity doctor --data items.jsonl --work /proc/none",
            "--work /proc/none: cannot be made",
        ),
        ("interpret heads --data items.jsonl --figures /proc/none", "--figures /proc/none: cannot be made"),
        ("interpret lens --tuned-lens no/lens.safetensors", "no/lens.safetensors: there is no such folder"),
        ("interpret lens --tuned-lens rows.jsonl", "rows.jsonl: is not a tuned lens"),
        ("interpret patch personas.jsonl --out /proc/none", "--out /proc/none: cannot be made"),
        (f"{FINETUNE} --learning-rate 0", "learning_rate and epochs must be above 0"),
        (f"{FINETUNE} --evaluate-trait evil", "no judge: give --judge"),
        (
            f"{FINETUNE} --vectors demo --intervention ablation --trait evil --layer 99",
            "evil: layer 99 cannot be used",
        ),
        (
            f"{FINETUNE} --vectors demo --intervention steering --trait evil --coefficient humor=1",
            "coefficients of humor do not fit vectors of evil",
        ),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_is_wrong_is_said_before_a_model_is_loaded(capsys, arguments, said):
    assert run([*arguments.split(), "--model", "no/such-model"]) == 2
    assert said in capsys.readouterr().err
