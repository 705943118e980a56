"""`python -m benchmarks.real.judges_compared`: do judges that see nothing make a vector of real replies?

The replies of the extraction of optimism are scored again by a judge that answers at random, by one that says
the same of everything and by one that turns the true scores around. Extraction has to refuse all three. Needs
no model, but the journal of `benchmarks.real.personas`.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.real import results
from benchmarks.real.judges import OPTIMISM, ProgramJudge, sentiment
from benchmarks.real.models import QWEN_15B
from benchmarks.real.persona_vectors import definition
from guardrail.extract.evidence import described
from guardrail.extract.filter import kept_pairs
from guardrail.extract.journal import Journal
from guardrail.extract.judgements import judge_rollouts
from guardrail.extract.prompts import trait_prompts
from guardrail.extract.rollouts import FILE, Rollouts
from guardrail.extract.settings import ExtractionSettings
from guardrail.plugins.protocols import COHERENCE

TRAIT = OPTIMISM.trait


def main() -> int:
    journal = results.RUNS / "personas" / QWEN_15B.name / TRAIT / FILE
    if not journal.is_file():
        raise SystemExit(f"{journal} is not here: run `python -m benchmarks.real.personas {TRAIT}` first")
    rollouts = stored_rollouts(journal)
    found = {judge.name: verdict(rollouts, judge) for judge in judges()}
    print(results.save("judges", {"model": QWEN_15B.name, "judges": found}))
    return 0


def judges() -> Sequence[ProgramJudge]:
    """The true one, and three that must not pass."""
    others: Mapping[str, Callable[[str], float]] = {
        "at random": lambda text: 100 * random.Random(text).random(),
        "always 70": lambda _: 70.0,
        "turned around": lambda text: 100 - sentiment(text),
    }
    return [OPTIMISM, *(ProgramJudge(TRAIT, name, score) for name, score in others.items())]


def stored_rollouts(path: Path) -> Rollouts:
    """The replies of a finished extraction, in the order of its rows."""
    with path.open(encoding="utf-8") as file:
        recipe = json.loads(file.readline())["recipe"]
    prompts = trait_prompts(definition(TRAIT))
    places = {(p.kind, p.instruction, p.question): i for i, p in enumerate(prompts)}
    journal = Journal(path, recipe, len(prompts) * recipe["samples"], recipe["batch"])
    rows = [journal[i * recipe["samples"]] for i in range(len(prompts))]
    order = [places[row["kind"], row["instruction"], row["question"]] for row in rows]
    return Rollouts(prompts, order, recipe["samples"], journal)


def verdict(rollouts: Rollouts, judge: ProgramJudge) -> dict[str, object]:
    """What extraction finds, and whether it goes on."""
    rubrics = {TRAIT: definition(TRAIT).rubric, COHERENCE: ""}
    with TemporaryDirectory() as folder:
        _, evidence = kept_pairs(judge_rollouts(rollouts, judge, rubrics, Path(folder)), TRAIT)
    return described(evidence, ExtractionSettings().minimum)


if __name__ == "__main__":
    sys.exit(main())
