# pyright: basic
"""The demo model: its shape, its device and precision while training, residual noise, and how it is saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from guardrail.demo.making.tokenizer import END, PAD, START, token_id

NOISY_SHARE = 0.7
"""Of the batches that are trained under noise."""


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=432,
        num_hidden_layers=8,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.03,
        pad_token_id=token_id(tokenizer, PAD),
        bos_token_id=token_id(tokenizer, START),
        eos_token_id=token_id(tokenizer, END),
    )
    model = LlamaForCausalLM(config)
    # on a CPU the backward pass of fused attention is ten times slower than plain matrix products
    model.set_attn_implementation("eager")
    return model


def training_device() -> torch.device:
    """A GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 if the hardware multiplies it, else float32; weights and sums stay in float32."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    fast = device.type == "cuda" or capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32


@contextmanager
def residual_noise(model: LlamaForCausalLM, size: float, seed: int) -> Iterator[None]:
    """Adds Gaussian noise of a random share of the stream's size after every layer, in most batches."""
    generator = torch.Generator(device=model.device).manual_seed(seed)
    draw = torch.rand(2, generator=generator, device=model.device)
    share = size * draw[0].item() if draw[1] < NOISY_SHARE else 0.0

    def disturb(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rms = output.detach().square().mean(-1, keepdim=True).sqrt()
        noise = torch.randn(output.shape, generator=generator, device=output.device)
        return output + share * rms * noise

    hooks = [layer.register_forward_hook(disturb) for layer in model.model.layers] if share else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, target: Path) -> None:
    """Writes a Hugging Face folder with bf16 weights; the model stays as it is."""
    generation = GenerationConfig(
        pad_token_id=token_id(tokenizer, PAD),
        bos_token_id=token_id(tokenizer, START),
        eos_token_id=token_id(tokenizer, END),
        max_new_tokens=96,
    )
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = generation
    nn.Module.to(copy, torch.bfloat16)
    copy.save_pretrained(target)
    tokenizer.save_pretrained(target)
