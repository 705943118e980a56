# pyright: basic
"""`python -m guardrail.demo STEP [--work FOLDER]`: makes the demo model and what belongs to it.

Steps: train, vectors, calibrate, evaluate, card, or all (in that order); seeds trains and measures two more
seeds for the card.
"""

import argparse
from pathlib import Path

from guardrail.calibration import Calibration
from guardrail.demo import CALIBRATION, MODEL, VECTORS, files
from guardrail.demo.training import SEED, train, with_fast_allocator
from guardrail.vectors import TraitVectors

STEPS = ("train", "vectors", "calibrate", "evaluate", "card")
RESULTS = Path("benchmarks/results/demo-model.json")
OTHER_SEEDS = (2, 3)


def main() -> None:
    """Runs the steps that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m guardrail.demo", description=__doc__)
    parser.add_argument("step", choices=(*STEPS, "seeds", "all"))
    parser.add_argument("--work", type=Path, default=Path("runs/demo"), help="where training keeps its state")
    parser.add_argument("--checkpoints", action="store_true", help="keep five models from along the way")
    arguments = parser.parse_args()
    with_fast_allocator()
    for step in STEPS if arguments.step == "all" else (arguments.step,):
        print(f"== {step}", flush=True)
        _run(step, arguments.work, arguments.checkpoints)


def _run(step: str, work: Path, checkpoints: bool) -> None:
    if step == "train":
        train(work, MODEL, checkpoints=checkpoints)
    elif step == "seeds":
        _seeds(work)
    else:
        {"vectors": _vectors, "calibrate": _calibrate, "evaluate": _evaluate, "card": _card}[step](work)
    if CALIBRATION.exists():
        files.save_checksums()


def _vectors(work: Path) -> None:
    from guardrail.demo.build import build_contrasts, build_vectors
    from guardrail.demo.runner import Runner

    runner = Runner.load()
    identity = runner.fingerprint()
    files.save_fingerprint(identity)
    contrasts = build_contrasts(runner)
    files.save_differences(work, {t: c.difference for t, c in contrasts.items()})
    build_vectors(runner, identity, contrasts).save(VECTORS)


def _calibrate(_work: Path) -> None:
    from guardrail.demo.build import build_calibration
    from guardrail.demo.runner import Runner

    build_calibration(Runner.load(), TraitVectors.load(VECTORS)).save(CALIBRATION)


def _evaluate(work: Path) -> None:
    from guardrail.demo.evaluation import evaluate
    from guardrail.demo.runner import Runner

    vectors, calibration = TraitVectors.load(VECTORS), Calibration.load(CALIBRATION)
    differences = files.load_differences(work)
    evaluate(Runner.load(), vectors, calibration, differences, seed=SEED, steered=True).save(RESULTS)


def _seeds(work: Path) -> None:
    """Everything but steering, which the guard measures on the shipped files."""
    from guardrail.demo.build import build_calibration, build_contrasts, build_vectors
    from guardrail.demo.evaluation import evaluate
    from guardrail.demo.runner import Runner

    for seed in OTHER_SEEDS:
        model = work / f"seed-{seed}" / "model"
        train(work / f"seed-{seed}", model, seed=seed)
        runner = Runner.load(model)
        contrasts = build_contrasts(runner)
        vectors = build_vectors(runner, runner.fingerprint(), contrasts)
        calibration = build_calibration(runner, vectors)
        differences = {t: c.difference for t, c in contrasts.items()}
        found = evaluate(runner, vectors, calibration, differences, seed=seed, steered=False)
        found.save(_of_seed(seed))


def _of_seed(seed: int) -> Path:
    return RESULTS.with_name(f"demo-model-seed-{seed}.json")


def _card(_work: Path) -> None:
    from guardrail.demo.card import write_card
    from guardrail.demo.evaluation.results import Evaluation

    paths = [RESULTS, *(p for seed in OTHER_SEEDS if (p := _of_seed(seed)).exists())]
    population = Calibration.load(CALIBRATION).population
    write_card([Evaluation.load(path) for path in paths], TraitVectors.load(VECTORS), population)


if __name__ == "__main__":
    main()
