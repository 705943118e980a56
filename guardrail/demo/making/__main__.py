# pyright: basic
"""`python -m guardrail.demo.making STEP`: what `make demo-model` runs beside guardrail's own commands.

train: the model. prompts: what `vectors extract` and `calibrate` read. ship: the files made, with their
checksums. evaluate: all that the card shows. card: the model card.
"""

import argparse
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from guardrail.demo import CALIBRATION, MODEL, VECTORS
from guardrail.demo.making import files

RESULTS = Path("benchmarks/results")
AGAIN = RESULTS / "demo-model-again.json"
"""The first seed trained a second time, the whole of `make demo-model` in one go, which was not shipped."""
PROMPTS_SEED, MIXED, BENIGN = 20, 4000, 6000


def main() -> None:
    """Runs one step."""
    parser = argparse.ArgumentParser(prog="python -m guardrail.demo.making", description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--work", type=Path, default=Path("runs/demo"), help="work folder")
    parser.add_argument("--seed", type=int, default=1, help="of the training")
    parser.add_argument("--checkpoints", action="store_true", help="keep five models from along the way")
    given = parser.parse_args()
    STEPS[given.step](given)


def _train(given: argparse.Namespace) -> None:
    from guardrail.demo.making.training import train, with_fast_allocator

    with_fast_allocator()
    train(given.work, given.work / "model", seed=given.seed, checkpoints=given.checkpoints)


def _prompts(given: argparse.Namespace) -> None:
    from guardrail.demo import material

    files.write_prompts(given.work / "mixed.jsonl", material.training(PROMPTS_SEED, MIXED))
    benign = material.benign(PROMPTS_SEED + 1, BENIGN, "train", "validation")
    files.write_prompts(given.work / "benign.jsonl", benign)


def _ship(given: argparse.Namespace) -> None:
    from guardrail.calibration.values import Calibration
    from guardrail.vectors.values import TraitVectors

    shutil.copytree(given.work / "model", MODEL, dirs_exist_ok=True)
    shutil.copy(given.work / "vectors.safetensors", VECTORS)
    # whoever uses it has other versions than those it was made with, and need not be told
    replace(Calibration.load(given.work / "calibration.json"), certificates=()).save(CALIBRATION)
    files.save_fingerprint(TraitVectors.load(VECTORS).provenance.fingerprint)
    files.save_checksums()


def _evaluate(given: argparse.Namespace) -> None:
    from guardrail.demo.making.evaluation import Made, evaluate

    made = Made(
        model=given.work / "model",
        vectors=given.work / "vectors.safetensors",
        calibration=given.work / "calibration.json",
        raw=given.work / "raw.safetensors",
    )
    evaluate(made, seed=given.seed, steered=given.seed == 1).save(_results(given.seed))


def _card(_given: argparse.Namespace) -> None:
    from guardrail.calibration.values import Calibration
    from guardrail.demo.making.card import write_card
    from guardrail.demo.making.evaluation.results import Evaluation
    from guardrail.vectors.values import TraitVectors

    paths = {"seed 1": _results(1), "seed 1 again": AGAIN, "seed 2": _results(2), "seed 3": _results(3)}
    found = {name: Evaluation.load(path) for name, path in paths.items() if path.exists()}
    write_card(found, TraitVectors.load(VECTORS), Calibration.load(CALIBRATION).population)


def _results(seed: int) -> Path:
    return RESULTS / f"demo-model{'' if seed == 1 else f'-seed-{seed}'}.json"


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": _train,
    "prompts": _prompts,
    "ship": _ship,
    "evaluate": _evaluate,
    "card": _card,
}

if __name__ == "__main__":
    main()
