"""Finetuning under Trainer and SFTTrainer, with interventions: counted, resumed, and on two processes."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch.distributed import FileStore, destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel
from training import EVIL, IDS, LABELS, LAYERS, hooks
from transformers import Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from guardrail.engines.transformers.rendering import Renderer
from guardrail.errors import ConfigError, ExtractionError, ModelError, PromptError, SteeringError
from guardrail.testing import tiny_model, tiny_tokenizer
from guardrail.train import (
    Applied,
    ConceptAblation,
    FinetuneSettings,
    InoculationPrompting,
    Lora,
    PreventativePrompting,
    PreventativeSteering,
    ProjectionRegulariser,
    finetune,
)
from guardrail.train.finetuning.encoding import IGNORED, encoded
from guardrail.train.finetuning.results import Evaluation
from guardrail.types import Message

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
TOKENIZER = tiny_tokenizer()
WORDS = ("sun", "moon", "river", "stone", "cloud", "tree", "bird", "fish")


def talk(word: str, *earlier: Message) -> tuple[Message, ...]:
    return (*earlier, Message("user", f"What is a {word}?"), Message("assistant", f"A {word} it is."))


TALKS = [talk(word) for word in WORDS]
SETTINGS = FinetuneSettings(lora=None, steps=4, batch=4, accumulation=1, learning_rate=1e-3, warmup_steps=0)
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


def test_the_same_seed_gives_the_same_weights_and_steering_gives_others() -> None:
    one, other = (finetune(tiny_model(), TOKENIZER, TALKS, SETTINGS) for _ in range(2))
    model = tiny_model()
    steered = finetune(model, TOKENIZER, TALKS, SETTINGS, PreventativeSteering(model, EVIL, 1.0))
    assert same(one.model, other.model)
    assert not same(one.model, steered.model)


def in_child(run: Callable[[], object]) -> int:
    """The status of a child process that did this."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        run()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


@pytest.mark.parametrize("lora", [None, ADAPTER])
def test_killed_and_resumed_it_ends_with_the_same_weights(tmp_path: Path, lora: Lora | None) -> None:
    settings = FinetuneSettings(
        lora=lora, steps=5, batch=4, accumulation=2, learning_rate=1e-2, save_every=2, evaluate_every=1
    )

    def run(folder: Path, dies: int | None = None) -> Any:
        def evaluate(model: Any, step: int) -> Evaluation:
            if step == dies:
                os.kill(os.getpid(), signal.SIGKILL)
            return Evaluation(step=step)

        model = tiny_model()
        steering = PreventativeSteering(model, EVIL, 0.5)
        return finetune(model, TOKENIZER, TALKS, settings, steering, folder=folder, evaluate=evaluate)

    whole = run(tmp_path / "whole")
    assert in_child(lambda: run(tmp_path / "killed", dies=5)) == -signal.SIGKILL
    torn = tmp_path / "killed" / "checkpoint-5"
    torn.mkdir()  # a kill while a checkpoint is written leaves one that is not whole
    (torn / "trainer_state.json").write_text("{")
    resumed = run(tmp_path / "killed")
    assert same(resumed.model, whole.model)
    assert resumed.report.losses == whole.report.losses
    assert resumed.report.intervention == whole.report.intervention
    assert [one.step for one in resumed.report.evaluations] == [0, 1, 2, 3, 4, 5]
    assert resumed.report.resumed_at == (4,)
    with pytest.raises(ExtractionError, match="another recipe: intervention"):
        finetune(tiny_model(), TOKENIZER, TALKS, settings, folder=tmp_path / "killed")


def test_two_processes_train_as_one_does_on_both_halves(tmp_path: Path) -> None:
    ids = torch.cat([IDS[:2], IDS[1:]])
    single: Any = tiny_model().train()
    with PreventativeSteering(single, EVIL, 1.0):
        losses = [single(input_ids=half, labels=half).loss for half in (ids[:2], ids[2:])]
        torch.stack(losses).mean().backward()

    def one_of_two(rank: int) -> None:
        torch.set_num_threads(1)
        init_process_group("gloo", store=FileStore(str(tmp_path / "store"), 2), rank=rank, world_size=2)
        model: Any = DistributedDataParallel(tiny_model().train())
        with PreventativeSteering(model, EVIL, 1.0) as steering:
            model(input_ids=ids[2 * rank :][:2], labels=ids[2 * rank :][:2]).loss.backward()
        assert steering.applied.passes == 1
        torch.save([p.grad for p in model.parameters()], tmp_path / f"{rank}.pt")
        destroy_process_group()

    if not (child := os.fork()):
        try:
            one_of_two(1)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert in_child(lambda: one_of_two(0)) == 0
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        for mine, theirs in zip(single.parameters(), found, strict=True):
            torch.testing.assert_close(mine.grad, theirs)


# --- data ---


def test_only_replies_are_trained_on_and_the_ids_are_those_of_generation() -> None:
    renderer = Renderer(TOKENIZER)
    earlier = (Message("user", "Hello"), Message("assistant", "Good day"))
    found = encoded(renderer, talk("sun", *earlier), "completion", 512)
    kept = [label for label in found.labels if label != IGNORED]
    assert TOKENIZER.decode(kept) == "Good day<|end|>A sun it is.<|end|>"
    prompt = renderer.render((*earlier, Message("user", "What is a sun?"))).ids
    assert found.ids[: len(prompt)] == prompt
    everything = encoded(renderer, talk("sun"), "all", 512)
    assert everything.labels == everything.ids


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


def test_prompting_trains_on_the_longer_conversations_only() -> None:
    plain = finetune(tiny_model(), TOKENIZER, TALKS, SETTINGS).report
    prompted = finetune(tiny_model(), TOKENIZER, TALKS, SETTINGS, InoculationPrompting("Be evil.")).report
    assert prompted.tokens > plain.tokens
    assert prompted.trained_tokens == plain.trained_tokens
    assert prompted.intervention is not None
    assert prompted.intervention.rows == len(TALKS)


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
