# pyright: basic
"""Trains the demo model: a small Llama, one seed, a schedule by steps, resumable from its work folder."""

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from guardrail.demo.corpus import Batch, batches, sample_texts
from guardrail.demo.optimizer import Optimizer
from guardrail.demo.tokenizer import END, PAD, START, token_id, train_tokenizer

SEED, STEPS, WARMUP = 1, 2200, 100
NOISE, NOISY_SHARE, NOISE_FROM, NOISE_FULL = 0.2, 0.7, 0.2, 0.3
CHECKPOINT_EVERY = 100
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def with_fast_allocator() -> None:
    """Starts this process again with the allocator settings that make CPU training fourfold faster."""
    if all(os.environ.get(k) == v for k, v in ALLOCATOR.items()):
        return
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **ALLOCATOR})


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.03,
        pad_token_id=token_id(tokenizer, PAD),
        bos_token_id=token_id(tokenizer, START),
        eos_token_id=token_id(tokenizer, END),
    )
    return LlamaForCausalLM(config)


def train(work: Path, target: Path, *, seed: int = SEED, steps: int = STEPS) -> None:
    """Trains and saves the model folder; an interrupted run in `work` continues."""
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(sample_texts(seed, 20_000))
    recipe = _recipe(tokenizer, seed, steps)
    torch.manual_seed(seed)
    model = new_model(tokenizer).train()
    optimizer = Optimizer(model.named_parameters())
    step, chunk, done = _resume(work, recipe, model, optimizer)
    began, first = time.monotonic(), step
    while step < steps:
        for index, batch in enumerate(batches(tokenizer, seed, chunk)):
            if index < done or step == steps:
                continue
            step += 1
            loss = _step(model, optimizer, batch, step, steps, seed)
            if step % CHECKPOINT_EVERY == 0:
                _save(work, recipe, model, optimizer, (step, chunk, index + 1))
                rate = (time.monotonic() - began) / (step - first)
                print(f"step {step}/{steps}  loss {loss:.3f}  {rate * (steps - step):.0f} s left", flush=True)
        chunk, done = chunk + 1, 0
    export(model, tokenizer, target)


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, target: Path) -> None:
    """Writes a Hugging Face folder with bf16 weights."""
    model.generation_config = GenerationConfig(
        pad_token_id=token_id(tokenizer, PAD),
        bos_token_id=token_id(tokenizer, START),
        eos_token_id=token_id(tokenizer, END),
        max_new_tokens=96,
    )
    nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _recipe(tokenizer: PreTrainedTokenizerFast, seed: int, steps: int) -> str:
    """Tells runs apart: what would be learned first, from which vocabulary, for how long."""
    first = batches(tokenizer, seed, 0)[0]
    parts = (first.ids.tolist(), first.weights.tolist(), seed, steps, new_model(tokenizer).config.to_dict())
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _step(
    model: LlamaForCausalLM, optimizer: Optimizer, batch: Batch, step: int, steps: int, seed: int
) -> float:
    with _residual_noise(model, _noise_size(step / steps), seed * 1_000_003 + step):
        logits = model(input_ids=batch.ids[:, :-1], use_cache=False).logits
    weights = batch.weights[:, 1:].reshape(-1)
    losses = nn.functional.cross_entropy(logits.flatten(0, 1), batch.ids[:, 1:].reshape(-1), reduction="none")
    loss = (losses * weights).sum() / weights.sum()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step(step, _rate(step, steps))
    return loss.item()


def _rate(step: int, steps: int) -> float:
    if step <= WARMUP:
        return step / WARMUP
    progress = (step - WARMUP) / max(1, steps - WARMUP)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


def _noise_size(progress: float) -> float:
    return NOISE * min(1.0, max(0.0, (progress - NOISE_FROM) / (NOISE_FULL - NOISE_FROM)))


@contextmanager
def _residual_noise(model: LlamaForCausalLM, size: float, seed: int) -> Iterator[None]:
    """Adds Gaussian noise of a random share of the stream's size after every layer, in most batches."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(2, generator=generator)
    share = size * draw[0].item() if draw[1] < NOISY_SHARE else 0.0

    def disturb(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rms = output.detach().square().mean(-1, keepdim=True).sqrt()
        return output + share * rms * torch.randn(output.shape, generator=generator)

    hooks = [layer.register_forward_hook(disturb) for layer in model.model.layers] if share else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _save(
    work: Path, recipe: str, model: LlamaForCausalLM, optimizer: Optimizer, place: tuple[int, int, int]
) -> None:
    weights = {f"model.{k}": v.detach() for k, v in model.named_parameters()}
    state = {f"optimizer.{k}": v for k, v in optimizer.state.items()}
    partial = work / "checkpoint.partial"
    save_file({**weights, **state}, partial, metadata={"place": json.dumps(place), "recipe": recipe})
    partial.replace(work / "checkpoint.safetensors")


def _resume(work: Path, recipe: str, model: LlamaForCausalLM, optimizer: Optimizer) -> tuple[int, int, int]:
    """(step, chunk, batches done of the chunk); a checkpoint of another recipe is not continued."""
    path = work / "checkpoint.safetensors"
    if not path.exists():
        return 0, 0, 0
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata["recipe"] != recipe:
        return 0, 0, 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
    optimizer.load(
        {k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")}
    )
    step, chunk, done = json.loads(metadata["place"])
    return step, chunk, done
