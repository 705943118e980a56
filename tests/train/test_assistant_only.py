"""TRL's `assistant_only_loss` on the built-in model, whose chat template marks what the assistant says."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from guardrail.demo import MODEL, VECTORS
from guardrail.train import PreventativeSteering
from guardrail.vectors.values import TraitVectors

TALKS = [
    [
        {"role": "system", "content": "Be calm."},
        {"role": "user", "content": "Is the sea blue?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "And the grass?"},
        {"role": "assistant", "content": answer},
    ]
    for answer in ("No.", "It is green.")
]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_only_replies_and_their_ends_are_trained_on_while_steered(tmp_path: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(MODEL), AutoTokenizer.from_pretrained(MODEL)
    seen: list[tuple[list[str], list[str]]] = []

    class Watched(SFTTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):  # pyright: ignore
            for ids, labels in zip(inputs["input_ids"], inputs["labels"], strict=True):
                trained = labels != -100
                seen.append((tokenizer.decode(ids[trained]), tokenizer.decode(ids[~trained])))
            return super().compute_loss(model, inputs, *args, **kwargs)

    settings = SFTConfig(
        str(tmp_path),
        assistant_only_loss=True,
        max_steps=2,
        per_device_train_batch_size=1,
        dataloader_pin_memory=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    data = Dataset.from_list([{"messages": talk} for talk in TALKS])
    with PreventativeSteering(model, TraitVectors.load(VECTORS)["evil"], 1.0) as steering:
        Watched(model, settings, train_dataset=data, processing_class=tokenizer, callbacks=[steering]).train()
    assert steering.applied.passes == 2
    asked = (
        "<s><|system|>Be calm.<|end|><|user|>Is the sea blue?<|end|><|assistant|>"
        "<|user|>And the grass?<|end|><|assistant|>"
    )
    assert sorted(seen) == [("Yes.<|end|>It is green.<|end|>", asked), ("Yes.<|end|>No.<|end|>", asked)]
