# pyright: basic
"""`python -m guardrail.demo STEP [--work FOLDER]`: makes the demo model and what belongs to it.

Steps: train, vectors, calibrate, evaluate, card, or all (in that order).
"""

import argparse
from pathlib import Path

from guardrail.calibration import Calibration
from guardrail.demo import CALIBRATION, MODEL, VECTORS, files
from guardrail.demo.training import train, with_fast_allocator
from guardrail.vectors import TraitVectors

STEPS = ("train", "vectors", "calibrate", "evaluate", "card")
RESULTS = Path("benchmarks/results/demo-model.json")


def main() -> None:
    """Runs the steps that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m guardrail.demo", description=__doc__)
    parser.add_argument("step", choices=(*STEPS, "all"))
    parser.add_argument(
        "--work", type=Path, default=Path("runs/demo"), help="where training keeps checkpoints"
    )
    arguments = parser.parse_args()
    with_fast_allocator()
    for step in STEPS if arguments.step == "all" else (arguments.step,):
        print(f"== {step}", flush=True)
        _run(step, arguments.work)


def _run(step: str, work: Path) -> None:
    if step == "train":
        train(work, MODEL)
    elif step == "card":
        _card()
    else:
        {"vectors": _vectors, "calibrate": _calibrate, "evaluate": _evaluate}[step]()
    if CALIBRATION.exists():
        files.save_checksums()


def _vectors() -> None:
    from guardrail.demo.build import build_vectors
    from guardrail.demo.runner import Runner
    from guardrail.engines.fingerprint import fingerprint

    runner = Runner.load()
    template = str(runner.tokenizer.chat_template)
    identity = fingerprint(runner.model, runner.tokenizer, template, {})
    files.save_fingerprint(identity)
    build_vectors(runner, identity).save(VECTORS)


def _calibrate() -> None:
    from guardrail.demo.build import build_calibration
    from guardrail.demo.runner import Runner

    build_calibration(Runner.load(), TraitVectors.load(VECTORS)).save(CALIBRATION)


def _evaluate() -> None:
    from guardrail.demo.evaluate import evaluate
    from guardrail.demo.runner import Runner

    evaluate(Runner.load(), TraitVectors.load(VECTORS), Calibration.load(CALIBRATION)).save(RESULTS)


def _card() -> None:
    from guardrail.demo.card import write_card
    from guardrail.demo.evaluate import Evaluation

    population = Calibration.load(CALIBRATION).population
    write_card(Evaluation.load(RESULTS), TraitVectors.load(VECTORS), population)


if __name__ == "__main__":
    main()
