"""The origin of the numbers: the machine, the package versions and the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = {"guardrail": "persona-guardrail"} | {n: n for n in ("torch", "transformers", "nnsight", "numpy")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine that the numbers depend on."""

    system: str
    processor: str
    cores: int
    threads: int
    device: str
    load: float


def machine(device: str) -> Machine:
    """This machine."""
    import torch

    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=os.cpu_count() or 0,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name() if device.startswith("cuda") else device,
        load=os.getloadavg()[0],
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions() -> dict[str, str]:
    """Python and the packages that matter."""
    return {"python": platform.python_version()} | {name: _version(p) for name, p in PACKAGES.items()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "source tree"


def commit() -> str:
    """The measured commit; `unknown` if guardrail does not run from its own repository."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "guardrail", "benchmarks/*.py")
    return head + ("+" if changed else "") if head else "unknown"


def _git(*arguments: str) -> str:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
