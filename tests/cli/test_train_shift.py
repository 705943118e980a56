"""`guardrail train shift`: models, adapters and checkpoints on disk, and what is wrong with them."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from tiny import LAYERS, TOKENIZER, WIDTH

from guardrail.cli import run
from guardrail.extract.subject import Subject
from guardrail.testing import tiny_model, tiny_tokenizer
from guardrail.train.shift import Relation, Run, TraitRelation
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.values import TraitVector, TraitVectors, unit


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A base with vectors of evil and humor, and two checkpoints that have moved towards evil."""
    folder = tmp_path_factory.mktemp("world")
    saved(tiny_model(mlp_bias=True), folder / "base")
    base = Subject.load(str(folder / "base"), device="cpu")
    rng = np.random.default_rng(3)
    made = {
        name: TraitVector.from_difference(name, rng.normal(size=(LAYERS + 1, WIDTH)), layer=2)
        for name in ("evil", "humor")
    }
    source = Provenance(fingerprint=base.fingerprint, method="random", created="2026-01-01")
    vectors = TraitVectors(made, source)
    vectors.save(folder / "v.safetensors")
    for step, amount in ((10, 1.0), (9, 0.5)):
        saved(moved(vectors, amount), folder / "run" / f"checkpoint-{step}")
    prompts = [{"messages": [{"role": "user", "content": text}]} for text in ("a", "bc", "d e", "f", "gg")]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    return folder


def saved(model, folder, tokenizer=TOKENIZER):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def moved(vectors, amount):
    model = tiny_model(mlp_bias=True)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.bias += amount * torch.from_numpy(
            unit(vectors["evil"].steering)[2]
        )
    return model


def shift(world, *arguments, base="base"):
    given = ["--base", str(world / base), "--vectors", str(world / "v.safetensors"), "--device", "cpu"]
    return run(["train", "shift", *map(str, arguments), *given])


def test_the_checkpoints_of_a_run_in_order_with_a_page(world, capsys):
    assert (
        shift(world, world / "run", "--html", world / "page.html", "--prompts", world / "prompts.jsonl") == 0
    )
    told = capsys.readouterr().out
    assert told.index("checkpoint-9 since") < told.index("checkpoint-10 since")
    assert "evil moved up" in told
    page = (world / "page.html").read_text()
    assert "<svg" in page
    assert "Entanglement" in page


def test_json_holds_what_was_measured_and_a_prediction(world, capsys):
    assert shift(world, world / "run", "--json", "--prompts", world / "prompts.jsonl") == 0
    first = json.loads(capsys.readouterr().out)["shifts"][0]
    runs = tuple(
        Run(name=str(x), shift=x, score=40 * x + y)
        for x, y in ((0.0, 1), (0.4, 0), (0.8, 2), (1.2, 0), (1.6, 1))
    )
    relation = Relation(
        base_weights=TraitVectors.load(world / "v.safetensors").provenance.fingerprint.weights,
        vectors_sha256=first["vectors_sha256"],
        prompts_sha256=first["prompts_sha256"],
        judge="a judge",
        traits={"evil": TraitRelation(layer=2, runs=runs)},
    )
    relation.save(world / "relation.json")
    known = ["--prompts", world / "prompts.jsonl", "--relation", world / "relation.json"]
    assert shift(world, world / "run" / "checkpoint-10", "--json", *known) == 0
    (found,) = json.loads(capsys.readouterr().out)["shifts"]
    assert found["traits"]["evil"]["layers"][1]["shift"]["value"] == pytest.approx(1.0, abs=1e-4)
    assert found["predictions"]["evil"]["score"]["value"] == pytest.approx(40.6, abs=1)
    assert found["predictions"]["evil"]["outside"] is False
    assert shift(world, world / "run", "--relation", world / "relation.json", "--trait", "evil") == 2
    assert "another set of prompts" in capsys.readouterr().err


def test_the_questions_of_the_traits_and_an_earlier_checkpoint(world, capsys):
    early, late = (world / "run" / f"checkpoint-{step}" for step in (9, 10))
    assert shift(world, late, "--since", early, "--trait", "evil", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["shifts"]
    assert found["since"] == str(early)
    evil = found["traits"]["evil"]
    assert evil["layers"][1]["shift"]["value"] == pytest.approx(0.5, abs=1e-4)
    assert evil["layers"][1]["asked"] is not None
    assert evil["prompts"] == 20


def test_a_checkpoint_without_a_tokenizer_takes_that_of_the_base(world, capsys, tmp_path):
    moved(TraitVectors.load(world / "v.safetensors"), 1.0).save_pretrained(tmp_path / "bare")
    assert shift(world, tmp_path / "bare", "--prompts", world / "prompts.jsonl") == 0
    assert "full weights" in capsys.readouterr().out


def test_an_adapter_is_put_on_its_base_and_on_no_other(world, capsys, tmp_path):
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = type(tiny_model(mlp_bias=True)).from_pretrained(world / "base")
        settings = LoraConfig(r=2, target_modules=["down_proj"], init_lora_weights=False)
        get_peft_model(base, settings).save_pretrained(tmp_path / "adapter")
    known = ["--prompts", world / "prompts.jsonl"]
    assert shift(world, tmp_path / "adapter", *known) == 0
    assert "adapter of" in capsys.readouterr().out
    saved(tiny_model(mlp_bias=True, seed=4), tmp_path / "other")
    config = tmp_path / "adapter" / "adapter_config.json"
    written = json.loads(config.read_text())
    config.write_text(json.dumps(written | {"base_model_name_or_path": str(tmp_path / "other")}))
    assert shift(world, tmp_path / "adapter", *known) == 2
    assert f"was trained on {tmp_path / 'other'}, not on" in capsys.readouterr().err
    # a copy of the base is the base
    shutil.copytree(world / "base", tmp_path / "copy")
    config.write_text(json.dumps(written | {"base_model_name_or_path": str(tmp_path / "copy")}))
    assert shift(world, tmp_path / "adapter", *known) == 0
    config.write_text("{")
    assert shift(world, tmp_path / "adapter", *known) == 2
    assert "adapter_config.json: not JSON" in capsys.readouterr().err


def test_what_is_wrong_is_said_before_a_model_is_loaded(world, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.jsonl").write_text("")
    run_folder = world / "run"
    for arguments, said in (
        ([tmp_path / "empty"], "holds no model (config.json), no adapter"),
        ([run_folder, "--trait", "evl"], "no vector for the trait `evl`; did you mean `evil`?"),
        ([run_folder, "--layer", "9"], "layer 9 cannot be read; layers are 1 to 4"),
        ([run_folder, "--prompts", tmp_path / "none.jsonl"], "the file contains no prompt"),
        ([run_folder, "--prompts", tmp_path / "missing.jsonl"], "cannot be read: No such file"),
        ([run_folder, "--since", tmp_path / "empty"], "holds no model (config.json), no adapter"),
        (
            [run_folder, "--since", run_folder],
            f"--since: {run_folder} holds 2 checkpoints; name one, such as",
        ),
        ([run_folder, "--relation", world / "prompts.jsonl"], "cannot be read as a relation"),
    ):
        assert shift(world, *arguments, base="no-such-base") == 2
        assert said in capsys.readouterr().err


def test_other_models_tokenizers_and_bases_are_refused(world, capsys, tmp_path):
    known = ["--prompts", world / "prompts.jsonl"]
    saved(tiny_model(mlp_bias=True, seed=4), tmp_path / "other")
    assert shift(world, tmp_path / "other", *known) == 2
    assert "does not seem to be a finetune of" in capsys.readouterr().err
    more = tiny_tokenizer()
    more.add_tokens(["<new>"])
    saved(moved(TraitVectors.load(world / "v.safetensors"), 1.0), tmp_path / "words", more)
    assert shift(world, tmp_path / "words", *known) == 2
    assert "differ in 1 tokens, such as `<new>`" in capsys.readouterr().err
    shutil.copytree(tmp_path / "other", world / "another", dirs_exist_ok=True)
    assert shift(world, world / "run", *known, base="another") == 2
    assert "the vectors were not made for the base" in capsys.readouterr().err
    assert shift(world, tmp_path / "nothing-here", *known) == 2
    assert "cannot be loaded" in capsys.readouterr().err
