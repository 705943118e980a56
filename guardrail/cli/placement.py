"""Where a verb's model is put, and in which type: `--device`, `--dtype`, `--quantize`, `--device-map`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from guardrail.cli.options import DeviceMap, Dtype, ModelOptions, Quantize
from guardrail.errors import ConfigError


def arguments_of(model: ModelOptions, auto: Dtype = Dtype.AUTO) -> dict[str, Any]:
    """What `from_pretrained` gets. `auto` is what the dtype `auto` means."""
    quantized = quantize_arguments(model.quantize, device_of(model.device))
    return dtype_argument(model.dtype, auto) | quantized | device_map_argument(model.device_map)


def placed(loaded: Any, model: ModelOptions) -> Any:
    """The model on the device that was asked for."""
    # a quantised or spread model is where it has to be already, and refuses to move
    there = model.device_map or getattr(loaded, "is_quantized", False)
    return loaded if there else loaded.to(device_of(model.device))


def dtype_argument(dtype: Dtype, auto: Dtype = Dtype.AUTO) -> dict[str, Any]:
    """What `from_pretrained` gets; nothing for the type of the files."""
    import torch

    chosen = auto if dtype is Dtype.AUTO else dtype
    return {} if chosen is Dtype.AUTO else {"dtype": getattr(torch, chosen.value)}


def device_map_argument(device_map: DeviceMap | None) -> dict[str, Any]:
    """What `from_pretrained` gets to spread weights over devices. Raises ConfigError without accelerate."""
    if device_map is None:
        return {}
    if find_spec("accelerate") is None:
        raise ConfigError("--device-map needs accelerate: pip install accelerate")
    return {"device_map": device_map.value}


def quantize_arguments(quantize: Quantize | None, device: str) -> dict[str, Any]:
    """What `from_pretrained` gets to quantise weights. Raises ConfigError if a package for it is missing."""
    if quantize is None:
        return {}
    if missing := [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]:
        raise ConfigError(
            f"--quantize needs {' and '.join(missing)}: pip install 'persona-guardrail[quantize]'"
        )
    from transformers import BitsAndBytesConfig

    wanted = BitsAndBytesConfig(
        load_in_4bit=quantize is Quantize.FOUR, load_in_8bit=quantize is Quantize.EIGHT
    )
    return {"quantization_config": wanted, "device_map": {"": device}}


def device_of(name: str) -> str:
    """The device that `--device` means on this machine. Raises ConfigError for one that it does not have."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if count else "cpu"
    if name.startswith("cuda") and not count:
        raise ConfigError("there is no CUDA device here; use --device cpu")
    number = int(name.partition(":")[2] or 0)
    if number and number >= count:
        raise ConfigError(f"there is no device {name}; this machine has {count} CUDA devices, from cuda:0")
    return name
