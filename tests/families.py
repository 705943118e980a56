"""Chat templates of a dozen model families, as far as turns, trimming, merging and tools go."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

FOLDER = Path(__file__).parent / "chat_templates"


@dataclass(frozen=True)
class Family:
    """`marks`: its special tokens. `tools`: whether it knows the role `tool`, `offers`: the argument `tools`.

    `trims`: whether it trims the texts of users.
    """

    marks: tuple[str, ...]
    tools: bool = False
    offers: bool = False
    trims: bool = False


_IM = ("<|im_start|>", "<|im_end|>")
FAMILIES = {
    "qwen2.5": Family(_IM, tools=True, offers=True),
    "qwen3": Family(_IM, tools=True, offers=True),
    "llama2": Family(("<s>", "</s>"), trims=True),
    "llama3": Family(
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        tools=True,
        offers=True,
        trims=True,
    ),
    "mistral": Family(
        ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        tools=True,
        offers=True,
    ),
    "gemma": Family(("<bos>", "<start_of_turn>", "<end_of_turn>"), trims=True),
    "phi3": Family(("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"), tools=True),
    "phi4": Family((*_IM, "<|im_sep|>"), tools=True),
    "zephyr": Family(("<s>", "</s>"), tools=True),
    "deepseek": Family(("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"), tools=True),
    "smollm2": Family(_IM, tools=True),
    "command-r": Family(
        ("<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>"),
        tools=True,
        trims=True,
    ),
}


def template(name: str) -> str:
    """The chat template of a family."""
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8").removesuffix("\n")


def byte_level(marks, corpus=()):
    """A tokenizer of bytes, or one with merges learnt from a corpus; the family's marks are special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({name: i for i, name in enumerate(alphabet)}, []))
    # without splitting at words, so that merges cross every border that they can
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not corpus)
    made.decoder = decoders.ByteLevel()
    if corpus:
        made.train_from_iterator(corpus, trainers.BpeTrainer(initial_alphabet=alphabet, vocab_size=600))
    made.add_special_tokens(list(marks))
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False)
