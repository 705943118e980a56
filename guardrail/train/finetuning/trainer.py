"""TRL's SFTTrainer for rows that are token ids already, and a model without the patches it leaves behind."""
# what PEFT asks the hub can be switched off nowhere
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardrail.errors import ConfigError, ModelError
from guardrail.train.finetuning.encoding import Encoded
from guardrail.train.finetuning.settings import FinetuneSettings, Lora

if TYPE_CHECKING:
    from trl.trainer.sft_trainer import SFTTrainer

NEEDED = 'finetuning needs the extra `train`: pip install "persona-guardrail[train]"'


def check_trainable(model: Any, settings: FinetuneSettings) -> None:
    """Raises ModelError for weights that these settings cannot train."""
    if settings.lora is not None:
        return
    kinds = {str(p.dtype) for p in model.parameters()} - {"torch.float32"}
    if kinds:
        raise ModelError(
            f"all weights are to be trained, and they are {', '.join(sorted(kinds))}: small steps would be "
            "rounded away; load the model with dtype float32, or train an adapter"
        )


def made_trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Encoded],
    settings: FinetuneSettings,
    folder: Path,
    callbacks: Sequence[Any],
) -> SFTTrainer:
    """A trainer for these rows. Seeds the random generators. Raises ConfigError without the extra `train`."""
    try:
        from datasets import Dataset
        from transformers import PrinterCallback
        from trl.trainer.sft_trainer import SFTTrainer
    except ImportError as error:
        raise ConfigError(f"{NEEDED} ({error})") from error
    data = {"input_ids": [list(row.ids) for row in rows], "labels": [list(row.labels) for row in rows]}
    with warnings.catch_warnings(), _in_private():
        # peft asks transformers by a name that transformers 5.24 calls deprecated
        warnings.filterwarnings("ignore", ".*gradient_checkpointing", FutureWarning)
        made = SFTTrainer(
            model=model,
            args=_arguments(model, settings, folder),
            train_dataset=Dataset.from_dict(data),
            processing_class=tokenizer,
            peft_config=_adapter(settings.lora) if settings.lora else None,
            callbacks=list(callbacks),
        )
    # prints every step where there is no bar
    made.remove_callback(PrinterCallback)
    return made


@contextmanager
def saved_in_private() -> Generator[None]:
    """At each saving, PEFT asks the hub for the configuration of a base that is no folder (a GGUF file, say).

    It wants to know whether the vocabulary has changed. Nothing here changes it, and the hub learns no path.
    """
    from peft.utils import save_and_load

    before, save_and_load.check_file_exists_on_hf_hub = save_and_load.check_file_exists_on_hf_hub, _on_no_hub
    try:
        yield
    finally:
        save_and_load.check_file_exists_on_hf_hub = before


def _on_no_hub(repo_id: str, filename: str, **kwargs: Any) -> bool:
    return False


@contextmanager
def _in_private() -> Generator[None]:
    """TRL tells the hub which of its trainers are used, unless this is set: nothing here phones home."""
    from huggingface_hub import constants

    before, constants.HF_HUB_DISABLE_TELEMETRY = constants.HF_HUB_DISABLE_TELEMETRY, True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


def _arguments(model: Any, settings: FinetuneSettings, folder: Path) -> Any:
    from trl.trainer.sft_config import SFTConfig

    return SFTConfig(
        output_dir=str(folder),
        max_steps=settings.steps or -1,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type=settings.schedule,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        max_length=settings.max_tokens,
        packing=settings.packing,
        dataset_kwargs=None if settings.packing else {"skip_prepare_dataset": True},
        # its own defaults are True, on a CPU too
        bf16=settings.precision == "bfloat16",
        gradient_checkpointing=settings.gradient_checkpointing,
        use_cpu=model.device.type == "cpu",
        train_sampling_strategy="group_by_length" if settings.by_length else "random",
        save_strategy="steps" if settings.save_every else "no",
        save_steps=settings.save_every or 1,
        # the newest may be torn by a kill; there is one before it
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def _adapter(lora: Lora) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=lora.dropout,
        use_rslora=lora.stabilised,
        target_modules=lora.modules if isinstance(lora.modules, str) else list(lora.modules),
        task_type="CAUSAL_LM",
    )


@contextmanager
def without_patches(model: Any) -> Generator[None]:
    """Afterwards no module has a `forward` of its own that it did not have before, nor hooks on the input.

    TRL replaces the forward of the model, and accelerate under autocast; a guard would refuse such a model.
    """
    before = {id(module) for module in model.modules() if "forward" in module.__dict__}
    hooks = [(module._forward_hooks, dict(module._forward_hooks)) for module in model.modules()]
    try:
        yield
    finally:
        for module in model.modules():
            if id(module) not in before:
                module.__dict__.pop("forward", None)
                module.__dict__.pop("_original_forward", None)
        for now, then in hooks:
            for key in set(now) - set(then):
                del now[key]
