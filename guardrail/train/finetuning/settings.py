"""How to finetune. The defaults are those of Chen et al. 2025 (arXiv 2507.21509, D; rs-LoRA of rank 32)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from guardrail.errors import ConfigError

Loss: TypeAlias = Literal["completion", "last", "all"]
Precision: TypeAlias = Literal["float32", "bfloat16"]
Schedule: TypeAlias = Literal["linear", "cosine", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A low-rank adapter. `modules`: `all-linear`, or the names of the modules that get one.

    stabilised: scaled by alpha / sqrt(rank) instead of alpha / rank (rs-LoRA).
    """

    rank: int = 32
    alpha: float = 64
    dropout: float = 0.0
    stabilised: bool = True
    modules: str | tuple[str, ...] = "all-linear"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """`lora`: None trains all weights. `steps`: optimizer steps, None for whole `epochs`.

    A step has `batch` x `accumulation` conversations on each device. `loss`: on every reply, on the last
    one only, or on all tokens. `precision`: bfloat16 means autocast; weights keep their type. `by_length`:
    batches of similar lengths, which have less padding. `save_every`, `evaluate_every`: in steps; None for
    the end only. `max_tokens`: longer conversations are refused. Raises ConfigError for settings that make
    no sense.
    """

    lora: Lora | None = Lora()
    learning_rate: float = 1e-5
    epochs: float = 1.0
    steps: int | None = None
    batch: int = 2
    accumulation: int = 8
    warmup_steps: int = 5
    schedule: Schedule = "linear"
    weight_decay: float = 0.01
    max_tokens: int = 2048
    loss: Loss = "completion"
    precision: Precision = "float32"
    gradient_checkpointing: bool = False
    packing: bool = False
    by_length: bool = False
    seed: int = 0
    save_every: int | None = None
    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "accumulation", "max_tokens", "steps", "save_every", "evaluate_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        if not self.learning_rate > 0 or not self.epochs > 0:
            raise ConfigError("learning_rate and epochs must be above 0")
