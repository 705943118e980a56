"""python -m benchmarks.vllm STAGE --model MODEL: measures, and writes benchmarks/results/vllm.json."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.vllm import identity
from benchmarks.vllm.models import GGUF, MODELS, prepare

RESULTS = Path("benchmarks/results/vllm.json")


def main() -> int:
    """Exit code 0."""
    chosen = parser().parse_args()
    model = MODELS[chosen.model]()
    if chosen.stage == "prepare":
        prepare(chosen.model, chosen.gguf)
    elif chosen.stage == "throughput":
        from benchmarks.vllm.throughput import measured

        kind = "compiled" if chosen.compiled else "eager"
        write(f"throughput {model.name} {kind}", measured(model, chosen.seconds, chosen.compiled))
    elif chosen.stage == "workers":
        from benchmarks.vllm import workers

        write(f"workers {model.name}", workers.measured(model, chosen.seconds))
    elif chosen.stage == "compare":
        for name, numbers in (
            ("identity", identity.compared(model)),
            ("nnsight", identity.against_nnsight(model)),
        ):
            if numbers:
                write(f"{name} {model.name}", numbers)
    else:
        print(identity.run(model, chosen.stage, chosen.count, chosen.seconds), "prompts answered")
    return 0


def write(name: str, numbers: Any) -> None:
    """Put one result beside the others."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    found["versions"] = {package: version(package) for package in ("torch", "transformers")}
    found[name] = numbers
    RESULTS.write_text(json.dumps(found, indent=1, default=_plain) + "\n", encoding="utf-8")
    print(json.dumps(numbers, indent=1, default=_plain))


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value.model_dump()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.vllm", description=__doc__)
    stages = ["prepare", "reference", "bare", *identity.SIDES, "nnsight", "compare", "throughput", "workers"]
    made.add_argument("stage", choices=stages, help="what to do; the answers of a side are kept in runs/vllm")
    made.add_argument("--model", choices=sorted(MODELS), default="demo", help="the model")
    made.add_argument("--count", type=int, default=1000, help="prompts (default 1000)")
    made.add_argument("--seconds", type=float, default=120.0, help="how long to measure (default 120)")
    made.add_argument("--gguf", type=Path, default=GGUF, help="file that `prepare` makes a folder of")
    made.add_argument("--compiled", action="store_true", help="compile layers, on both sides")
    return made


if __name__ == "__main__":
    raise SystemExit(main())
