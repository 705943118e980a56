"""Models in one GGUF file, as llama.cpp reads them. Quantised weights are unpacked when they are loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from guardrail.engines.transformers.origin import Origin
from guardrail.engines.transformers.weights import BLOCK
from guardrail.errors import ModelError
from guardrail.files.gguf import GgufHeader, is_gguf, read_header
from guardrail.types import Glimpse

WEIGHTS = ("*.safetensors", "*.bin")
SIZES = ("block_count", "embedding_length")
END_TOKENS = ("eos", "eot", "eom")
"""The end of a text, of a turn, and of a message that calls a tool: each ends a reply."""


def find(source: str, name: str | None = None, hub: Mapping[str, Any] | None = None) -> Path | None:
    """The GGUF file that is meant, if one is: the path itself, the only one of a folder, or one by name.

    hub: how a file of the hub is fetched. Raises ModelError if it cannot be told, or is not there.
    """
    path = Path(source)
    if name is not None:
        return _named(source, name, hub or {})
    if path.is_dir():
        return _only_one(path)
    if path.suffix.lower() == ".gguf" and not path.is_file():
        raise ModelError(f"there is no file {path}")
    return path if path.suffix.lower() == ".gguf" or is_gguf(path) else None


def _named(source: str, name: str, hub: Mapping[str, Any]) -> Path:
    from transformers.utils.hub import cached_file

    try:
        return Path(str(cached_file(source, name, **hub)))
    except OSError as error:
        raise ModelError(f"{source} has no file {name}: {error}") from error


def _only_one(folder: Path) -> Path | None:
    """The GGUF file of a folder that has no other weights."""
    found = sorted(folder.glob("*.gguf"))
    if not found or any(True for kind in WEIGHTS for _ in folder.glob(kind)):
        return None
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ModelError(f"{folder} holds several GGUF files; name one of them: {names}")
    return found[0]


def load(file: Path, arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    """(model, tokenizer) of a file, in eval mode, its weights unpacked. Raises ModelError."""
    header = _header(file)
    if type(arguments.get("quantization_config", None)).__name__ not in ("NoneType", "GgufConfig"):
        raise ModelError(f"{file} cannot be quantised again: a GGUF file is loaded as it is")
    try:
        model, tokenizer, missing = _loaded(file, {"dtype": "auto", **_unpacked(), **arguments})
    except Exception as error:  # what the loader stumbles over in a file that it does not know
        architecture = header.metadata.get("general.architecture")
        raise ModelError(f"{file} cannot be loaded; its architecture is `{architecture}`: {error}") from error
    if missing:
        raise ModelError(f"{file} lacks {len(missing)} weights of its model, such as {min(missing)}")
    _complete(model, file, header)
    return model, tokenizer


def _header(file: Path) -> GgufHeader:
    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise ModelError(
            f"GGUF files need the package {' and '.join(missing)}: pip install 'persona-guardrail[gguf]'"
        )
    try:
        header = read_header(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be loaded: {error}") from error
    parts = header.metadata.get("split.count", 0)
    if isinstance(parts, int) and parts > 1:
        raise ModelError(f"{file} is one part of several; join them first: llama-gguf-split --merge")
    return header


def _loaded(file: Path, arguments: Mapping[str, Any]) -> tuple[Any, Any, Sequence[str]]:
    """(model, tokenizer, names of weights that the file lacks)."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with alone(file) as place:
        config = AutoConfig.from_pretrained(**place)
        tokenizer = AutoTokenizer.from_pretrained(**place)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            **place, config=config, output_loading_info=True, **arguments
        )
    model, info = loaded
    return model.eval(), tokenizer, sorted(info["missing_keys"])


@contextmanager
def alone(file: Path) -> Generator[dict[str, str]]:
    """Arguments of `from_pretrained` for a file without its neighbours.

    transformers prefers a tokenizer, generation settings or adapters that happen to lie next to it.
    """
    with TemporaryDirectory() as folder:
        (Path(folder) / file.name).symlink_to(file.resolve())
        yield {"pretrained_model_name_or_path": folder, "gguf_file": file.name}


def _unpacked() -> dict[str, Any]:
    """Arguments that make plain weights of quantised ones, whatever kernels are installed."""
    try:
        from transformers import GgufConfig
    except ImportError:
        # older versions always unpack
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _complete(model: Any, file: Path, header: GgufHeader) -> None:
    """What a loaded model does not know yet: its end tokens, and where it is from."""
    names = (f"tokenizer.ggml.{name}_token_id" for name in END_TOKENS)
    if ends := [int(header.metadata[name]) for name in names if name in header.metadata]:
        model.generation_config.eos_token_id = list(dict.fromkeys(ends))
    model.name_or_path = model.config.name_or_path = str(file)
    # its weights are plain ones: it may be moved and cast like any other model
    model.is_quantized = False
    Origin.remember(_identity(file, header), model)


def glimpse(file: Path) -> Glimpse:
    """What a file says of its model. Raises ModelError if it cannot be read, KeyError if it says nothing."""
    header = _header(file)
    architecture = header.metadata["general.architecture"]
    layers, width = (int(header.metadata[f"{architecture}.{key}"]) for key in SIZES)
    return Glimpse(layers, width, _identity(file, header))


def identity(file: Path) -> str:
    """The identity of a file's weights. Raises ModelError if it cannot be read."""
    return _identity(file, _header(file))


def _identity(file: Path, header: GgufHeader) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stored:
        for tensor in sorted(header.tensors, key=lambda tensor: tensor.name):
            digest.update(json.dumps([tensor.name, tensor.kind, tensor.shape]).encode())
            stored.seek(tensor.start)
            digest.update(stored.read(min(BLOCK, tensor.size)))
    return f"gguf:{digest.hexdigest()[:32]}"
