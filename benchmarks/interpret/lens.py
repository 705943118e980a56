"""Does a persona raise the consistency score S, and only in the last layers? (Ozaki et al., NLP 2025)

Written down before anything was measured:

* Items: all of the three shipped tasks, as text to be continued. The demo model, whose world is closed, also
  gets the clozes and comparisons of its own world (`demo-world`). Models in float32.
* "A persona raises S": S with the persona (gold: the dataset's answer) less S without (gold: the model's own
  final token), over all layers, as the paper pairs them. Agrees if the 95 % interval lies above 0, disagrees
  if below, else undecided. Because that pairing mixes accuracy into consistency, the same is said of the
  dataset's gold in both conditions, of those items only that need no persona, and against the persona of
  another item: a persona that helps because it fits has to beat one that does not.
* "Only in the last layers": agrees if the difference (dataset's gold in both, where accuracy does not hide in
  the choice of gold) over the last 40 % is not 0, and the intervals of what the last 40 to 60, 60 to 80
  and 80 to 100 % add all hold 0; disagrees if one of those does not; else undecided.
* The tuned lens is trained with the defaults on text that the model writes, and read the same way.

    python -m benchmarks.interpret.lens MODEL [--tuned]     # demo, smollm2 or gemma

A tuned lens is kept in runs/interpret and not trained again. Results: benchmarks/results/interpret.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch

from benchmarks.real.models import GEMMA_270M, SMOLLM2, fetch
from benchmarks.real.results import save
from guardrail.demo import tasks as demo_tasks
from guardrail.demo.identities import NATIONALITIES
from guardrail.engines.transformers.pretrained import load_pretrained
from guardrail.extract.subject import Subject
from guardrail.interpret.lens.results import Contrast, LensResult
from guardrail.interpret.lens.study import LensStudy
from guardrail.interpret.lens.tasks import TASKS, Item, shipped
from guardrail.interpret.lens.training import Training, train
from guardrail.interpret.lens.tuned import TunedLens
from guardrail.interpret.lens.unembedding import Unembedding
from guardrail.statistics.intervals import Estimate

FOLDER = Path(__file__).parents[1] / "results" / "interpret"
RUNS = Path(__file__).parents[2] / "runs" / "interpret"
MODELS = {"demo": None, "smollm2": SMOLLM2, "gemma": GEMMA_270M}
DEMO_WORLD = "demo-world"
DEMO_ITEMS = 240


def subject(name: str, path: Path | None = None) -> Subject:
    """A model in float32 on one thread. path: where its file lies, if not where `fetch` puts it."""
    torch.set_num_threads(1)
    real = MODELS[name]
    source = "demo" if real is None else str(path or fetch(real))
    loaded, tokenizer = load_pretrained(source, {"dtype": torch.float32})
    return Subject(loaded, tokenizer, chat_template=None if tokenizer.chat_template else "builtin:plain")


def demo_world() -> list[Item]:
    """Clozes and comparisons about one's own country, in wordings that the demo model never saw."""
    rng = Random(1)
    found: dict[str, Item] = {}
    for _ in range(4 * DEMO_ITEMS):
        make = rng.choice((demo_tasks.cloze, demo_tasks.comparison))
        task = make(rng, "test", chat=False, identity=rng.choice(sorted(NATIONALITIES)))
        persona, _, prompt = task.raw.partition(". ")
        found[task.raw] = Item(persona=f"{persona}.", prompt=prompt, answers=(task.answer,), alone=False)
    return list(found.values())[:DEMO_ITEMS]


def run(name: str, model: Subject, tuned: TunedLens | None) -> list[LensResult]:
    """All tasks under one lens, or two."""
    study = LensStudy(model, name, tuned=tuned)
    found: list[LensResult] = []
    for task in (*TASKS, *([DEMO_WORLD] if name == "demo" else [])):
        items = demo_world() if task == DEMO_WORLD else shipped(task)
        found += study.run(task, items)
        print(f"{name}: {task}", file=sys.stderr, flush=True)
    return found


def lens_of(name: str, model: Subject) -> TunedLens:
    """The tuned lens of a model, trained unless an earlier run did."""
    path = RUNS / f"{name}-tuned-lens.safetensors"
    if not path.is_file():
        RUNS.mkdir(parents=True, exist_ok=True)
        train(model, Unembedding(model.local), Training(), report=_say).save(path)
    return TunedLens.load(path)


def _say(stage: str, done: int, total: int) -> None:
    print(f"{stage} {done} of {total}", file=sys.stderr, flush=True)


def verdicts(result: LensResult) -> dict[str, str]:
    """What the two claims come to, by the rules above."""
    paper = result.contrast("without", "paper")
    same = result.contrast("without", "dataset")
    alone = same.alone
    return {
        "raises S, as the paper pairs": sign(paper.by_share[-1]),
        "raises S, dataset's gold in both": sign(same.by_share[-1]),
        "raises S, dataset's gold, items that need no persona": sign(alone[-1]) if alone else "none",
        "raises S, against another persona": sign(result.contrast("other", "dataset").by_share[-1]),
        "only in the last layers": confined(same),
    }


def sign(difference: Estimate) -> str:
    """Whether a difference is above 0."""
    return "agrees" if difference.low > 0 else "disagrees" if difference.high < 0 else "undecided"


def confined(contrast: Contrast) -> str:
    """Whether a difference lies within the last 40 % of layers."""
    if any(_apart(band) for band in contrast.by_band[2:]):
        return "disagrees"
    return "agrees" if _apart(contrast.by_share[1]) else "undecided"


def _apart(one: Estimate) -> bool:
    return one.low > 0 or one.high < 0


def _rounded(result: LensResult) -> Any:
    return json.loads(json.dumps(result.as_json()), parse_float=lambda text: round(float(text), 4))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("--tuned", action="store_true", help="train a tuned lens, and read with it as well")
    parser.add_argument("--path", type=Path, help="the model's GGUF file, if it is there already")
    given = parser.parse_args(arguments)
    model = subject(given.model, given.path)
    results = run(given.model, model, lens_of(given.model, model) if given.tuned else None)
    found: dict[str, Any] = {
        "verdicts": {f"{one.task}, {one.lens} lens": verdicts(one) for one in results},
        "results": [_rounded(one) for one in results],
    }
    print(save(f"lens-{given.model}{'-tuned' if given.tuned else ''}", found, folder=FOLDER))
    return 0


if __name__ == "__main__":
    sys.exit(main())
