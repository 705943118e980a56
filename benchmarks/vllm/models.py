"""The models that are measured, as folders that vLLM can load, with their policies and prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import guardrail.demo
from guardrail.demo.generator import draw_prompt, draw_training_condition
from guardrail.engines.transformers.unpacking import unpack

RUNS = Path("runs/vllm")
CONTRAST = Path(__file__).parents[1] / "real" / "prompts" / "contrast.jsonl"
GGUF = Path("runs/models/smollm2-135m-instruct-q4_1.gguf")
PACK = "pack:smollm2-135m-instruct"
CAP = {"operator": "cap", "at": {"percentile": 75}}
PATIENT = {"timeout_ms": 600_000}
"""On a machine that others use, a time limit must not decide."""
DEMO: Mapping[str, Any] = {
    "version": 1,
    "defaults": PATIENT,
    "vectors": "demo",
    "calibration": "demo",
    "policies": [
        {"id": "no-malice", "trait": "evil", "threshold": {"fpr": 0.001}, "action": "block"},
        {"id": "straight", "trait": "sycophancy", "threshold": {"fpr": 0.01}, "action": {"steer": CAP}},
    ],
}
SMOL: Mapping[str, Any] = {
    "version": 1,
    "defaults": PATIENT,
    "vectors": PACK,
    "calibration": PACK,
    "policies": [
        {"id": "no-harm", "trait": "harm", "threshold": {"fpr": 0.01}, "action": "block"},
        {
            "id": "softened",
            "trait": "harm",
            "threshold": {"percentile": 60},
            "action": {"steer": {"operator": "ablate"}},
        },
    ],
}
Conversation = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Model:
    """A folder with weights and tokenizer, policies for it, and prompts. `tokens`: the length of a reply."""

    name: str
    folder: str
    policies: Mapping[str, Any]
    tokens: int

    def prompts(self, count: int) -> list[Conversation]:
        """Mixed conversations, benign and not."""
        if self.name == "demo":
            random = Random(0)
            return [draw_prompt(random, draw_training_condition(random)).messages for _ in range(count)]
        rows = [json.loads(line)["prompt"] for line in CONTRAST.read_text(encoding="utf-8").splitlines()]
        return [[{"role": "user", "content": text}] for text in rows[:count]]


def demo() -> Model:
    """The built-in model."""
    return Model("demo", str(guardrail.demo.MODEL), DEMO, 16)


def smol() -> Model:
    """SmolLM2-135M-Instruct, which `prepare` has made a folder of."""
    return Model("smol", str(RUNS / "smol"), SMOL, 8)


def wide() -> Model:
    """12 x 768 with random weights and the tokenizer of the built-in model."""
    return Model("12x768", str(RUNS / "12x768"), DEMO, 8)


MODELS = {"demo": demo, "smol": smol, "12x768": wide}


def prepare(name: str, gguf: Path = GGUF) -> None:
    """Make the folder of a model that has none. For `smol` in an environment that reads GGUF files."""
    from transformers import AutoTokenizer

    folder = MODELS[name]().folder
    if name == "smol":
        unpack(gguf, Path(folder))
    elif name == "12x768":
        _random().save_pretrained(folder)
        AutoTokenizer.from_pretrained(guardrail.demo.MODEL).save_pretrained(folder)


def _random() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=3072, hidden_size=768, intermediate_size=2048, num_hidden_layers=12,
        num_attention_heads=12, num_key_value_heads=12, max_position_embeddings=512, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config)
