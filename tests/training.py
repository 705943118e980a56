"""What the tests of training share: a tiny batch, vectors, and what hangs on a model."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed import FileStore, destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from guardrail.testing import tiny_model, tiny_tokenizer
from guardrail.types import Message
from guardrail.vectors.values import TraitVector

LAYERS, WIDTH = 4, 32
IDS = torch.arange(5, 41).reshape(3, 12)
LABELS = IDS.clone().masked_fill(torch.arange(12) < 6, -100)
"""The second half of each row is the reply."""


def vector(trait: str = "evil", seed: int = 0, layers: int = LAYERS) -> TraitVector:
    rows = np.random.default_rng(seed).normal(size=(layers + 1, WIDTH))
    return TraitVector.from_difference(trait, rows)


EVIL, HUMOR = vector(), vector("humor", 1)


def loss_of(model: Any) -> torch.Tensor:
    return model(input_ids=IDS, labels=LABELS).loss


def hooks(model: torch.nn.Module) -> list[int]:
    """How many hooks each module has."""
    return [
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._forward_hooks_with_kwargs)
        for m in model.modules()
    ]


TOKENIZER = tiny_tokenizer()


def talk(word: str, *earlier: Message) -> tuple[Message, ...]:
    return (*earlier, Message("user", f"What is a {word}?"), Message("assistant", f"A {word} it is."))


TALKS = [talk(word) for word in ("sun", "moon", "river", "stone", "cloud", "tree", "bird", "fish")]


def trained(folder: Path, dies: int | None = None) -> Any:
    """A run of five steps, kept in a folder; killed at one of them, before it has ended, if asked to."""
    from guardrail.train import FinetuneSettings, Lora, PreventativeSteering, finetune
    from guardrail.train.finetuning.results import Evaluation

    def evaluate(model: Any, step: int) -> Evaluation:
        if step == dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return Evaluation(step=step)

    lora = Lora(rank=4)
    settings = FinetuneSettings(
        lora=lora, steps=5, batch=4, accumulation=2, learning_rate=0.01, save_every=2, evaluate_every=1
    )
    model = tiny_model()
    steering = PreventativeSteering(model, EVIL, 0.5)
    return finetune(model, TOKENIZER, TALKS, settings, steering, folder=folder, evaluate=evaluate)


def halves() -> tuple[torch.Tensor, torch.Tensor]:
    return IDS[:2], IDS[1:]


def one_of_two(rank: int, folder: Path) -> list[torch.Tensor]:
    """The gradients of one of two processes, which train on a half each."""
    from guardrail.train import PreventativeSteering

    torch.set_num_threads(1)
    store = FileStore(str(folder / "store"), 2)
    init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(minutes=3))
    model: Any = DistributedDataParallel(tiny_model().train())
    ids = halves()[rank]
    with PreventativeSteering(model, EVIL, 1.0) as steering:
        model(input_ids=ids, labels=ids).loss.backward()
    assert steering.applied.passes == 1
    destroy_process_group()
    return [p.grad for p in model.parameters()]
