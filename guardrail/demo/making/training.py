# pyright: basic
"""Trains the demo model: a small Llama, one seed, a schedule by steps, resumable from its work folder."""

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from guardrail.demo.making.architecture import (
    export,
    new_model,
    residual_noise,
    training_device,
    training_dtype,
)
from guardrail.demo.making.corpus import Batch, batches, sample_texts, whole_words
from guardrail.demo.making.optimizer import Optimizer
from guardrail.demo.making.tokenizer import train_tokenizer

SEED, STEPS, WARMUP = 1, 9000, 200
NOISE, NOISE_FROM, NOISE_FULL = 0.2, 0.2, 0.3
SAVE_EVERY = 200
CHECKPOINTS = 5
TEXTS = 20_000
"""Lessons that the tokenizer is fitted on."""
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
    "GOMP_SPINCOUNT": "20000",
}


def with_fast_allocator() -> None:
    """Starts this process again with settings that make CPU training fourfold faster.

    Large blocks stay with the process, and threads spin briefly between operations instead of sleeping.
    """
    if all(os.environ.get(k) == v for k, v in ALLOCATOR.items()):
        return
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **ALLOCATOR})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run is: steps done, the chunk of the stream, and the batches done of it."""

    step: int = 0
    chunk: int = 0
    done: int = 0


def train(
    work: Path, target: Path, *, seed: int = SEED, steps: int = STEPS, checkpoints: bool = False
) -> None:
    """Trains and saves the model folder; an interrupted run in `work` continues.

    With `checkpoints`, five model folders from along the way are kept in `work/checkpoints`.
    """
    work.mkdir(parents=True, exist_ok=True)
    run = _Run(work, seed, steps)
    kept = {round(steps * (i + 1) / CHECKPOINTS) for i in range(CHECKPOINTS)} if checkpoints else set[int]()
    progress = _Progress(run.place.step, steps)
    for place, batch in run.remaining():
        progress.show(place.step, run.learn(place, batch))
        if place.step in kept:
            export(run.model, run.tokenizer, work / "checkpoints" / f"step-{place.step}")
    export(run.model, run.tokenizer, target)


class _Run:
    """A model in training with its optimizer, its place and its work folder."""

    def __init__(self, work: Path, seed: int, steps: int) -> None:
        self.tokenizer = train_tokenizer(sample_texts(SEED, TEXTS), whole_words())
        self._work, self._seed, self._steps = work, seed, steps
        device = training_device()
        self._dtype = training_dtype(device)
        torch.manual_seed(seed)
        self.model = new_model(self.tokenizer).train()
        nn.Module.to(self.model, device)
        self._optimizer = Optimizer(self.model.named_parameters(), self._dtype)
        self._recipe = _recipe(self.tokenizer, self.model, seed, steps)
        self.place = self._resumed()

    def remaining(self) -> Iterator[tuple[Place, Batch]]:
        """The batches still to be learned, each with the place that the run is at after it."""
        step, chunk, done = self.place.step, self.place.chunk, self.place.done
        while step < self._steps:
            for index, batch in enumerate(batches(self.tokenizer, self._seed, chunk)):
                if index >= done and step < self._steps:
                    step += 1
                    yield Place(step, chunk, index + 1), batch
            chunk, done = chunk + 1, 0

    def learn(self, place: Place, batch: Batch) -> float:
        """One step; its loss."""
        device, share = self.model.device, place.step / self._steps
        ids, weights = batch.ids.to(device), batch.weights[:, 1:].reshape(-1).to(device)
        noise = residual_noise(self.model, _noise_size(share), self._seed * 1_000_003 + place.step)
        with torch.autocast(device.type, self._dtype, enabled=self._dtype != torch.float32), noise:
            logits = self.model(input_ids=ids[:, :-1], use_cache=False).logits
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), ids[:, 1:].reshape(-1), reduction="none"
        )
        loss = (losses * weights).sum() / weights.sum()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step(place.step, _rate(place.step, self._steps))
        if place.step % SAVE_EVERY == 0:
            self._save(place)
        return loss.item()

    def _save(self, place: Place) -> None:
        weights = {f"model.{k}": v.detach() for k, v in self.model.named_parameters()}
        state = {f"optimizer.{k}": v for k, v in self._optimizer.state.items()}
        metadata = {"place": json.dumps((place.step, place.chunk, place.done)), "recipe": self._recipe}
        partial = self._work / "checkpoint.partial"
        save_file({**weights, **state}, partial, metadata=metadata)
        partial.replace(self._work / "checkpoint.safetensors")

    def _resumed(self) -> Place:
        """Where to resume. A checkpoint of another recipe is ignored."""
        path = self._work / "checkpoint.safetensors"
        if not path.exists():
            return Place()
        with safe_open(path, framework="pt", device=str(self.model.device)) as file:
            metadata, tensors = file.metadata(), {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        if metadata["recipe"] != self._recipe:
            return Place()
        _restore(self.model, tensors)
        state = {k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")}
        self._optimizer.load(state)
        return Place(*json.loads(metadata["place"]))


@torch.no_grad()
def _restore(model: LlamaForCausalLM, tensors: dict[str, torch.Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(tensors[f"model.{name}"])


class _Progress:
    """Prints the step, the loss and the time left."""

    def __init__(self, first: int, steps: int) -> None:
        self._first, self._steps, self._began = first, steps, time.monotonic()

    def show(self, step: int, loss: float) -> None:
        if step % SAVE_EVERY and step != self._steps:
            return
        rate = (time.monotonic() - self._began) / (step - self._first)
        left = rate * (self._steps - step)
        print(f"step {step}/{self._steps}  loss {loss:.3f}  {left:.0f} s left", flush=True)


def _recipe(tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM, seed: int, steps: int) -> str:
    """Identifies a run: its first lessons, its vocabulary and its length."""
    first = batches(tokenizer, seed, 0)[0]
    parts = (first.ids.tolist(), first.weights.tolist(), seed, steps, model.config.to_dict())
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _rate(step: int, steps: int) -> float:
    if step <= WARMUP:
        return step / WARMUP
    progress = (step - WARMUP) / max(1, steps - WARMUP)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


def _noise_size(progress: float) -> float:
    return NOISE * min(1.0, max(0.0, (progress - NOISE_FROM) / (NOISE_FULL - NOISE_FROM)))
