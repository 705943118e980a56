"""Finetuning under Trainer and SFTTrainer, with interventions: counted, resumed, and on two processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from tiny import write_vectors
from training import EVIL, IDS, LABELS, LAYERS, TALKS, TOKENIZER, halves, hooks, talk, trained
from transformers import Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from guardrail.cli import run
from guardrail.errors import ConfigError, ExtractionError, ModelError, PromptError, SteeringError
from guardrail.testing import tiny_model
from guardrail.train import (
    Applied,
    ConceptAblation,
    FinetuneSettings,
    InoculationPrompting,
    Lora,
    PreventativeSteering,
    ProjectionRegulariser,
    finetune,
)
from guardrail.types import Message

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
]
SETTINGS = FinetuneSettings(lora=None, steps=2, batch=4, accumulation=1, learning_rate=1e-3, warmup_steps=0)
ADAPTER = Lora(rank=4, alpha=8)


def weights(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for _, p in sorted(model.named_parameters())])


def same(one: Any, other: Any) -> bool:
    return torch.equal(weights(one), weights(other))


# --- as people use Trainer and SFTTrainer ---


def test_trainer_steers_every_pass_of_every_step_and_no_evaluation(tmp_path: Path) -> None:
    model = tiny_model()
    rows = [{"input_ids": a, "labels": b} for a, b in zip(IDS, LABELS, strict=True)] * 4
    steering = PreventativeSteering(None, EVIL, 1.0)
    trainer = Trainer(
        model,
        TrainingArguments(
            str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=3,
            gradient_accumulation_steps=2,
            eval_strategy="steps",
            eval_steps=1,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows,  # pyright: ignore
        eval_dataset=rows[:3],  # pyright: ignore
        callbacks=[steering],
    )
    trainer.train()
    assert (steering.applied.steps, steering.applied.passes) == (2, 4)
    unsteered = model(input_ids=IDS, labels=LABELS).loss.item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(unsteered, rel=1e-4)
    assert not any(hooks(model))
    with pytest.raises(SteeringError, match="in the block"), steering:
        steering.attach(model)  # nothing is trained in a second use


def sft(folder: Path, callbacks: list[Any], model: Any, **changes: Any) -> SFTTrainer:
    data = Dataset.from_list([{"messages": [m.as_dict() for m in one]} for one in TALKS])
    settings = {"max_steps": 2, "use_cpu": True, "report_to": "none", "disable_tqdm": True, **changes}
    adapter = LoraConfig(target_modules="all-linear", r=4, task_type="CAUSAL_LM")
    return SFTTrainer(
        model,
        SFTConfig(str(folder), dataloader_pin_memory=False, **settings),
        train_dataset=data,
        processing_class=TOKENIZER,
        peft_config=adapter,
        callbacks=callbacks,
    )


@pytest.mark.parametrize("packing", [False, True])
def test_sft_trainer_with_its_own_defaults(tmp_path: Path, packing: bool) -> None:
    model = tiny_model()  # bf16 autocast and gradient checkpointing are what SFTConfig has by default
    made = [PreventativeSteering(model, EVIL, 1.0), ConceptAblation(model, EVIL, layers=[2])]
    trainer = sft(tmp_path, made, model, packing=packing, max_length=64)
    assert trainer.args.bf16
    assert trainer.args.gradient_checkpointing
    trainer.train()
    assert [one.applied.steps for one in made] == [2, 2]
    assert [one.applied.passes for one in made] == [2, 2]


def test_sft_trainer_with_the_regulariser_uses_the_model_without_its_adapter(tmp_path: Path) -> None:
    model = tiny_model()
    with ProjectionRegulariser(None, EVIL, 10.0) as made:
        trainer = sft(tmp_path, [made], model, learning_rate=0.01, max_steps=3)
        trainer.train()
    assert made.applied.passes == 3
    assert made.applied.penalty is not None
    assert made.applied.penalty > 0


def test_an_error_in_training_leaves_nothing_behind_if_there_is_a_block(tmp_path: Path) -> None:
    class Fails(PreventativeSteering):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            raise ZeroDivisionError

    model = tiny_model()
    with pytest.raises(ZeroDivisionError), Fails(model, EVIL, 1.0) as steering:
        sft(tmp_path, [steering], model, gradient_checkpointing=False).train()
    assert not any(hooks(model))


def test_another_model_than_the_trainers_is_an_error(tmp_path: Path) -> None:
    trainer = sft(tmp_path, [PreventativeSteering(tiny_model(), EVIL, 1.0)], tiny_model())
    with pytest.raises(SteeringError, match="another model"):
        trainer.train()


# --- the function ---


def test_the_hub_is_not_asked_for_a_base_that_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda base, name: asked.append(base)
    )
    model = tiny_model()
    model.name_or_path = "models/private.gguf"
    settings = FinetuneSettings(lora=ADAPTER, steps=1, accumulation=1, save_every=1)
    finetune(model, TOKENIZER, TALKS, settings, folder=tmp_path)
    assert (tmp_path / "checkpoint-1" / "adapter_model.safetensors").is_file()
    assert not asked


@pytest.mark.parametrize("lora", [None, ADAPTER])
def test_the_loss_falls_and_the_model_is_as_clean_as_before(lora: Lora | None) -> None:
    model = tiny_model()
    state = torch.get_rng_state()
    settings = FinetuneSettings(
        lora=lora,
        steps=8,
        batch=8,
        accumulation=1,
        learning_rate=0.02,
        warmup_steps=0,
        gradient_checkpointing=True,
    )
    found = finetune(model, TOKENIZER, TALKS, settings, PreventativeSteering(model, EVIL, 0.1))
    report = found.report
    assert report.losses[-1] < 0.7 * report.losses[0]
    assert report.intervention == Applied(
        kind="preventative steering",
        traits=("evil",),
        coefficients=(0.1,),
        layers=tuple(range(1, LAYERS + 1)),
        steps=8,
        passes=8,
        recomputed=report.intervention.recomputed if report.intervention else 0,
        digest=report.intervention.digest if report.intervention else "",
    )
    assert not found.model.training
    assert not any(hooks(found.model))
    assert not any("forward" in module.__dict__ for module in found.model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seed_gives_its_weights_and_steering_or_a_prompt_gives_others() -> None:
    one, other = (finetune(tiny_model(), TOKENIZER, TALKS, SETTINGS) for _ in range(2))
    model = tiny_model()
    steered = finetune(model, TOKENIZER, TALKS, SETTINGS, PreventativeSteering(model, EVIL, 1.0))
    prompted = finetune(tiny_model(), TOKENIZER, TALKS, SETTINGS, InoculationPrompting("Be evil."))
    assert same(one.model, other.model)
    assert not same(one.model, steered.model)
    assert not same(one.model, prompted.model)
    assert prompted.report.tokens > one.report.tokens
    assert prompted.report.trained_tokens == one.report.trained_tokens
    assert prompted.report.intervention is not None
    assert prompted.report.intervention.rows == len(TALKS)


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_weights(processes: Any, tmp_path: Path) -> None:
    whole, killed = trained(tmp_path / "whole"), tmp_path / "killed"
    script = f"import pathlib, training; training.trained(pathlib.Path({str(killed)!r}), dies=5)"
    with processes.start(script) as process:
        assert process.end()[0] == -signal.SIGKILL
    torn = killed / "checkpoint-5"
    torn.mkdir()  # a kill while a checkpoint is written leaves one that is not whole
    (torn / "trainer_state.json").write_text("{")
    resumed = trained(killed)
    assert same(resumed.model, whole.model)
    assert resumed.report.losses == whole.report.losses
    assert resumed.report.intervention == whole.report.intervention
    assert [one.step for one in resumed.report.evaluations] == [0, 1, 2, 3, 4, 5]
    assert resumed.report.resumed_at == (4,)
    with pytest.raises(ExtractionError, match="another recipe: intervention"):
        finetune(tiny_model(), TOKENIZER, TALKS, whole.report.settings, folder=killed)


@pytest.mark.slow
def test_two_processes_train_as_one_does_on_both_halves(processes: Any, tmp_path: Path) -> None:
    single: Any = tiny_model().train()
    with PreventativeSteering(single, EVIL, 1.0):
        torch.stack([single(input_ids=half, labels=half).loss for half in halves()]).mean().backward()
    script = f"import pathlib, training; training.two_processes(pathlib.Path({str(tmp_path)!r}))"
    code, _, said = processes.run(script)
    assert code == 0, said
    for rank in (0, 1):
        found = load_file(tmp_path / f"{rank}.safetensors")
        for name, weights in single.named_parameters():
            torch.testing.assert_close(weights.grad, found[name])


@pytest.mark.parametrize(
    ("talks", "settings", "error", "text"),
    [
        ([], {}, ConfigError, "no conversation"),
        ([TALKS[0][:1]], {}, PromptError, "conversation 1: .*does not end in a reply"),
        ([*TALKS, talk("x" * 500)], {}, PromptError, "conversation 9: .* tokens; at most 512"),
        (TALKS, {"max_tokens": 8}, PromptError, "at most 8 are allowed"),
        ([(Message("tool", "x"), *TALKS[0])], {}, PromptError, "conversation 1: the chat template refuses"),
    ],
)
def test_what_cannot_be_trained_on_is_named(
    talks: list[Any], settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        finetune(tiny_model(), TOKENIZER, talks, FinetuneSettings(lora=None, **settings))


def test_weights_of_half_precision_are_not_trained_as_a_whole() -> None:
    with pytest.raises(ModelError, match="rounded away"):
        finetune(tiny_model().to(torch.bfloat16), TOKENIZER, TALKS, SETTINGS)


# --- the command ---


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run(["train", "finetune", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def rows_of(folder: Path, *more: str) -> Path:
    lines = [json.dumps({"messages": [m.as_dict() for m in one]}) for one in TALKS]
    (folder / "data.jsonl").write_text("\n".join([*lines, *more]) + "\n")
    return folder / "data.jsonl"


def test_the_command_trains_evaluates_saves_and_says_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choices = tmp_path / "choices.jsonl"
    choices.write_text(json.dumps({"question": "2 + 2?", "options": ["3", "4"], "answer": "B"}) + "\n")
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text(json.dumps({"prompt": "What is a car?", "completion": "A car it is."}) + "\n")
    arguments = (
        *(rows_of(tmp_path, "{broken"), "--out", tmp_path / "out", "--steps", 2, "--save-every", 1),
        *("--intervention", "steering", "--trait", "evil", "--coefficient", 0.5, "--evaluate-trait", "evil"),
        *("--questions", 2, "--max-new-tokens", 8, "--capability", choices, "--held-out", held_out, "--json"),
    )
    code, out, said = command(capsys, *arguments)
    found = json.loads(out)
    assert code == 0
    assert "1 row set aside, broken line: the first is row 9" in said
    assert found["aside"] == {"broken line": 1}
    assert found["report"]["intervention"]["passes"] == 2 * 4
    assert [one["step"] for one in found["report"]["evaluations"]] == [0, 2]
    for one in found["report"]["evaluations"]:
        assert {"traits", "coherence", "capability", "held_out_loss"} <= {k for k, v in one.items() if v}
    assert json.loads((tmp_path / "out" / "finetune.json").read_text()) == found
    assert json.loads((tmp_path / "out" / "set-aside.jsonl").read_text())["data"] == "{broken"
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    again = json.loads(command(capsys, *arguments)[1])
    assert again["report"]["losses"] == found["report"]["losses"]
    assert again["report"]["resumed_at"] == [2]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--strict"], "data.jsonl:9: not JSON"),
        (["--intervention", "steering"], "needs --trait"),
        (
            ["--intervention", "steering", "--trait", "evill"],
            "no vector for the trait `evill`; did you mean `evil`",
        ),
        (["--intervention", "steering", "--trait", "evil", "--coefficient", "much"], "neither one number"),
        (["--intervention", "steering", "--trait", "evil", "--coefficient", "humor=1"], "do not fit vectors"),
        (["--intervention", "ablation", "--trait", "evil", "--layer", "9"], "layer 9 cannot be used"),
        (["--intervention", "inoculation"], "needs --prompt"),
        (["--evaluate-trait", "evil", "--capability", "none.jsonl"], "none.jsonl"),
        (["--trait", "evil", "--coefficient", "1"], "--trait needs --intervention: without one"),
        (["--intervention", "ablation", "--trait", "evil", "--coefficient", "1"], "ablation has no use for"),
        (["--intervention", "inoculation", "--prompt", "Be evil.", "--layer", "2"], "has no use for it"),
        (["--evaluate-every", "5"], "nothing to evaluate"),
        (["--learning-rate", "0"], "learning_rate and epochs must be above 0"),
    ],
)
def test_the_command_names_what_cannot_be_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    code, _, said = command(capsys, rows_of(tmp_path, "{broken"), "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert text in said


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--held-out", "none.jsonl"], "none.jsonl"),
        (["--capability", "none.jsonl"], "none.jsonl"),
        (["--intervention", "inoculation"], "needs --prompt"),
        (["--intervention", "prompting", "--trait", "nice"], "nice"),
    ],
)
def test_it_is_named_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    given = (rows_of(tmp_path), "--model", tmp_path / "no-model", "--out", tmp_path / "out", *arguments)
    code, _, said = command(capsys, *given)
    assert (code, text in said, "no-model" in said) == (2, True, False)


def test_vectors_of_another_model_have_to_be_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model()
    write_vectors(tmp_path, tiny_model(seed=5))
    model.save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    arguments = (
        *(rows_of(tmp_path), "--model", tmp_path / "model", "--out", tmp_path / "out", "--steps", 1),
        *("--full", "--intervention", "ablation", "--trait", "evil"),
        *("--vectors", tmp_path / "vectors.safetensors"),
    )
    code, _, said = command(capsys, *arguments)
    assert (code, "made for another model" in said) == (2, True)
    code, out, _ = command(capsys, *arguments, "--allow-model-mismatch")
    assert code == 0
    assert "concept ablation of evil at layers 1 to 4: 4 forward passes" in out
