"""What changes between configurations: `python -m benchmarks.certificates --model demo --case bfloat16`.

The reference is transformers in float32. `guardrail certify` records and compares; a case that needs another
environment (vLLM) is run there, with the same --work. Prompts, fixed beforehand: those that `certify` takes
for the built-in model; for SmolLM2-135M-Instruct the first 600 of Alpaca and the first 200 harmful ones of
the shared data. Writes benchmarks/results/certificates.json, one entry for each model and case.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path("benchmarks/results/certificates.json")
REFERENCE = "float32"
CASES = {
    "float32": ("--dtype", "float32"),
    "bfloat16": ("--dtype", "bfloat16"),
    "int8": ("--dtype", "float32", "--quantize", "8bit"),
    "batching": ("--dtype", "float32", "--engine", "transformers-batching"),
    "vllm": ("--dtype", "float32", "--engine", "vllm"),
}
BENIGN, HARMFUL = 600, 200
PACK = "pack:smollm2-135m-instruct/harm"
STRICT = "strict"
"""The built-in model's policies for vLLM, which cannot steer below the last layer read as `chatbot` does."""


def main() -> int:
    arguments = _arguments()
    work = arguments.work / arguments.model
    work.mkdir(parents=True, exist_ok=True)
    common = _common(arguments, work)
    policies = _policies(arguments)[-1].partition("/")[2] or _policies(arguments)[-1]
    reference, own = (work / f"{case}-{policies}.json" for case in (REFERENCE, arguments.case))
    for case, path in ((REFERENCE, reference), (arguments.case, own)):
        if not path.exists():
            _guardrail(*common, *CASES[case], "--record", str(path))
    found = _guardrail(
        *_policies(arguments), "--against", str(reference), "--recorded", str(own), *_out(work)
    )
    _merge(arguments.model, arguments.case, json.loads(found))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("demo", "smollm2"), required=True)
    parser.add_argument("--case", choices=[case for case in CASES if case != REFERENCE], required=True)
    parser.add_argument("--path", help="the real model's file")
    parser.add_argument("--data", type=Path, default=Path("shared/data"), help="the folder of shared prompts")
    parser.add_argument("--work", type=Path, default=Path("runs/certificates"))
    return parser.parse_args()


def _policies(arguments: argparse.Namespace) -> list[str]:
    demo = STRICT if arguments.case == "vllm" else "chatbot"
    return ["--policies", PACK if arguments.model == "smollm2" else demo]


def _common(arguments: argparse.Namespace, work: Path) -> list[str]:
    """The model, and the prompts."""
    if arguments.model == "demo":
        return _policies(arguments)
    found = ["--model", arguments.path, *_policies(arguments)]
    for option, name, count in (("--benign", "benign-alpaca", BENIGN), ("--input", "harmful", HARMFUL)):
        rows = (arguments.data / "prompts" / f"{name}.jsonl").read_text().splitlines()[:count]
        prompts = [json.dumps(json.loads(row)["prompt"]) for row in rows]
        (work / f"{name}.jsonl").write_text("\n".join(prompts) + "\n")
        found += [option, str(work / f"{name}.jsonl")]
    return found


def _out(work: Path) -> list[str]:
    return ["--out", str(work / "certified.json"), "--force", "--json"]


def _guardrail(*words: str) -> str:
    """What `guardrail certify` prints. Exits if it could not compare; RECALIBRATE and FAIL are results."""
    code = "from guardrail.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "certify", *words], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)
    return done.stdout


def _merge(model: str, case: str, found: object) -> None:
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known.setdefault(model, {})[case] = found
    RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    print(row(model, case, known[model][case]))


def row(model: str, case: str, found: dict) -> str:
    """One row of the table in the README."""
    scores = found["agreement"]
    slopes = _range([one["slope"]["value"] for one in scores], 3)
    ranks = min(one["rank"]["value"] for one in scores)
    every = next(one for one in found["rates"] if one["policy"] == "")
    changed = found["all"]
    cells = [
        *(model, case, slopes, f"{ranks:.4f}", f"{max(one['largest'] for one in scores):.2f}"),
        f"{changed['changed']} of {changed['n']} {_interval(changed['share'])}",
        *(_interval(every["reference"]), _interval(every["candidate"]), found["verdict"]),
    ]
    return f"| {' | '.join(cells)} |"


def _range(values: Sequence[float], digits: int) -> str:
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def _interval(one: dict) -> str:
    return f"{100 * one['value']:.1f} % [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"


if __name__ == "__main__":
    sys.exit(main())
