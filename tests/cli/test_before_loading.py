"""Whatever can be known of files and numbers without the model is said before it is loaded."""

import json

import pytest
from gguf_files import tiny_gguf
from tiny import policies, policy, write_vectors

from guardrail.cli import models, run
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.glimpse import glimpse
from guardrail.engines.transformers.pretrained import load_pretrained
from guardrail.testing import tiny_model

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


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Files for a tiny model; another one of its sizes as GGUF; a folder with a smaller one's settings."""
    folder = tmp_path_factory.mktemp("others")
    write_vectors(folder, tiny_model())
    (folder / "policies.yaml").write_text(json.dumps(policies(folder, policy())))
    (folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    (folder / "labelled.jsonl").write_text(json.dumps({"prompt": "Hello", "trait": "evil"}) + "\n")
    benign = [f"Harmless prompt number {i}" for i in range(300)]
    (folder / "benign.jsonl").write_text("".join(json.dumps(text) + "\n" for text in benign))
    tiny_gguf(folder / "other.gguf", tiny_model(seed=3))
    tiny_model(num_hidden_layers=2).config.save_pretrained(folder / "smaller")
    return folder


@pytest.mark.parametrize("model", ["other.gguf", "smaller"])
@pytest.mark.parametrize(
    "arguments",
    [
        "check Hello --policies policies.yaml",
        "policy validate policies.yaml",
        "calibrate --vectors vectors.safetensors --benign benign.jsonl --out new.json",
        "evaluate --vectors vectors.safetensors --calibration calibration.json --data labelled.jsonl",
        "data screen rows.jsonl --vectors vectors.safetensors",
        f"{FINETUNE} --vectors vectors.safetensors --intervention ablation --trait evil",
        "train shift smaller --vectors vectors.safetensors --prompts benign.jsonl",
    ],
)
def test_files_of_another_model_are_refused_before_it_is_loaded(
    others, monkeypatch, capsys, arguments, model
):
    monkeypatch.chdir(others)
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("the model was loaded"))
    verb = arguments.split()
    assert run([*verb, "--base" if "shift" in verb else "--model", model]) == 2
    told = capsys.readouterr().err
    assert ("different: weights" if model == "other.gguf" else "layers") in told


def test_a_model_of_which_nothing_can_be_told_is_no_other(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    for name in ("no/such-model", str(tmp_path), str(tmp_path / "broken.gguf")):
        assert glimpse(name) is None


def test_a_glimpse_of_a_model_is_what_its_fingerprint_says(others):
    loaded = load_pretrained(str(others / "other.gguf"), {})
    mark, seen = fingerprint(*loaded, "", {}), glimpse(str(others / "other.gguf"))
    assert seen is not None
    assert seen.imagined(mark) == mark
