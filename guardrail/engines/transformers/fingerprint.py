"""What ties vectors and a calibration to a model, taken from the model and its tokenizer.

Weights loaded from a folder are identified by their files, so that the dtype they are loaded in does not
matter; from a hub by the revision; weights that exist only in memory, or that are no longer those of their
files, by a sample of their bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guardrail.engines.transformers.blocks import text_config, unwrapped
from guardrail.types import Fingerprint

BLOCK = 4096
SAMPLE = 64


def fingerprint(
    model: Any, tokenizer: Any, chat_template: str, template_arguments: Mapping[str, object]
) -> Fingerprint:
    """The fingerprint of a loaded model. Reads a few kilobytes of every tensor, not the whole."""
    inner = unwrapped(model)
    config = text_config(inner)
    template = json.dumps([chat_template, dict(template_arguments)], sort_keys=True, default=str)
    return Fingerprint(
        architecture=type(inner).__name__,
        layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        vocab_size=config.vocab_size,
        weights=_weights(inner) + _adapters(model),
        tokenizer=_sha(json.dumps(sorted(tokenizer.get_vocab().items()))),
        chat_template=_sha(template),
    )


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _weights(model: Any) -> str:
    commit = getattr(model.config, "_commit_hash", None)
    if commit:
        return f"revision:{commit}"
    folder = Path(getattr(model, "name_or_path", "") or "")
    files = sorted(folder.glob("*.safetensors")) if str(folder) != "." and folder.is_dir() else []
    if files and _still_those_of(files, model):
        return f"files:{_files_digest(files)}"
    return f"memory:{_memory_digest(model)}"


def _still_those_of(files: list[Path], model: Any) -> bool:
    """Whether every tensor in memory starts as its file does; quantised ones are not compared."""
    from safetensors import safe_open

    parameters = dict(model.named_parameters())
    for path in files:
        with safe_open(str(path), framework="pt") as file:
            for name in set(file.keys()) & set(parameters):
                if not _same_start(file.get_slice(name)[:1], parameters[name]):
                    return False
    return True


def _same_start(stored: Any, parameter: Any) -> bool:
    if parameter.device.type == "meta" or not parameter.is_floating_point():
        return True
    start = parameter.detach()[:1].cpu()
    return start.shape != stored.shape or bool((stored.to(start.dtype) == start).all())


def _files_digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            start = 8 + size
            for name in sorted(set(header) - {"__metadata__"}):
                entry = header[name]
                begin, end = entry["data_offsets"]
                digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
                file.seek(start + begin)
                digest.update(file.read(min(BLOCK, end - begin)))
    return digest.hexdigest()[:32]


def _memory_digest(model: Any) -> str:
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        if parameter.device.type != "meta":
            digest.update(_sampled(parameter))
    return digest.hexdigest()[:32]


def _sampled(parameter: Any) -> bytes:
    flat = parameter.detach().reshape(-1)
    step = max(1, flat.numel() // SAMPLE)
    return flat[::step][:SAMPLE].float().cpu().numpy().tobytes()


def _adapters(model: Any) -> str:
    if unwrapped(model) is model:
        return ""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name or "adapter" in name or "modules_to_save" in name:
            digest.update(name.encode() + _sampled(parameter))
    return f"+adapter:{digest.hexdigest()[:16]}"
