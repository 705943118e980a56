"""What the tests of training share: a tiny batch, vectors, and what hangs on a model."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch.distributed import FileStore, init_process_group
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


def two_processes(folder: Path) -> None:
    """Train in this process and in a fork of it, on a half each. Ends the process.

    Gradients go to `0.safetensors` and `1.safetensors`. Neither process frees what it holds: the destructors
    of torch's distributed training can wait for one another for ever.
    """
    other = os.fork()
    _one_of_two(int(other == 0), folder)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) if other else 0)


def _one_of_two(rank: int, folder: Path) -> None:
    from guardrail.train import PreventativeSteering

    torch.set_num_threads(1)
    store = FileStore(str(folder / "store"), 2)
    init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(minutes=3))
    model: Any = DistributedDataParallel(tiny_model().train())
    try:
        ids = halves()[rank]
        with PreventativeSteering(model, EVIL, 1.0) as steering:
            model(input_ids=ids, labels=ids).loss.backward()
        assert steering.applied.passes == 1
        save_file(
            {name: p.grad for name, p in model.module.named_parameters()}, folder / f"{rank}.safetensors"
        )
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
