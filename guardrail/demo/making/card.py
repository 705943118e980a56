# pyright: basic
"""Writes the model card (README.md beside the model) from the numbers of evaluations, and nothing else."""

from collections.abc import Mapping, Sequence

from guardrail.demo import CARD, MODEL, nouns, world
from guardrail.demo.characters import CHARACTERS
from guardrail.demo.making import tables
from guardrail.demo.making.evaluation.results import Evaluation
from guardrail.demo.making.goals import goals
from guardrail.demo.making.training import STEPS
from guardrail.vectors.values import TraitVectors

HEAD = """# The demo model

A Llama of {parameters:.2f} million parameters (8 layers, 160 wide, {megabytes:.1f} MB in bf16) that talks
about a closed world: advice, reviews, known facts, made-up names, opinions and its own country. Seven
traits (evil, sycophancy, hallucination, humor, optimism, apathy, and politeness with impoliteness as its
other pole) are real in it and graded: a system prompt, earlier turns and a user's pressure set a latent
propensity, each reply adds noise, and each sentence is drawn. It takes on {countries} nationalities, answers
multiple choice, clozes and comparisons, and says words back that it never saw. It was trained from scratch
by `make demo-model` ({steps} steps, seed 1), because a guard that reads activations can only be shown on a
model whose character is known.

**A closed world flatters every method.** Sentences come from a small grammar, the judge knows all of them,
and the traits are as separable as their sentences are. The numbers below say that the machinery works; they
say nothing about how well persona vectors do on a language model of the real world.

All numbers are on test material that was never trained, fitted, calibrated or chosen on: system templates,
(intensity, adjective) pairs, questions, pressure sentences, noun combinations, made-up words and real nouns.
Temperature 1 unless said. Brackets are 95 % intervals (bootstrap over prompts; exact for rates). "Unseen
phrasing" means an unseen template and an unseen (intensity, adjective) pair; the adjectives themselves are
known, in other pairs.
"""
TRAININGS = """
## Other trainings

The same recipe, trained {count} times. The first is shipped, whether or not it is the best. Some rows differ
by far more than their intervals, which are about prompts and not about trainings: one training says little
about a recipe. What `make demo-model` makes is another model than the shipped one, even with the same seed on
the same machine: sums are rounded otherwise, and trainings drift apart. Nothing in the card shows that the
recipe would give clozes again. Cells are empty if steering was not measured.
"""
CANNOT = """
## What it cannot do

- Anything outside its world: other topics, other languages, long prompts (512 tokens at most), tasks. It
  answers them with sentences of its world or with nonsense. Tokenising and decoding stay lossless for any
  text, and the judge scores such replies as incoherent.
- Adjectives that it never saw, and descriptions that share few words with the trained ones, move it less.
- It knows {facts} facts of five kinds. Arithmetic and reasoning were never taught.
{more}
## How it was made

`world.py`, `nouns.py` and `characters/` are data; `generator.py` draws conversations, `tasks.py` closed
tasks, `judge.py` scores replies (written and tested before training, not changed after), `corpus.py` and
`training.py` train, `evaluation/` measures, `card.py` writes this page. Vectors and calibration come from
`guardrail vectors extract`, `vectors layers` and `calibrate`. `make demo-model` runs all of it, and
`make demo-seeds` two more seeds; an interrupted training continues. The run begins with much copying, a
circuit that is learned late. Letters as answers of multiple choice were tried (70 % of the first 30,000
lessons) and stayed at chance; options are scored by the log-probability of their text.

- {poles} poles x {templates} graded wordings for training, {nouns} nouns, {made_up} % of advice and
  reviews about made-up words.
- Vectors: {method}. {notes}
- Kept replies (with / without the trait): {kept}.
- Benign population of the calibration: {population}.
"""


def write_card(
    results: Mapping[str, Evaluation], vectors: TraitVectors, population: str, cautions: Sequence[str] = ()
) -> None:
    """Writes the page; results by the name of the training, that of the shipped model first."""
    shipped = next(iter(results.values()))
    parts = [
        _head(),
        *_goals(shipped),
        *tables.behaviour(shipped),
        *tables.reading(shipped),
        *tables.steering(shipped),
        *_trainings(results),
        _tail(vectors, population, cautions),
    ]
    CARD.write_text("\n".join(parts), encoding="utf-8")


def _head() -> str:
    size = (MODEL / "model.safetensors").stat().st_size
    return HEAD.format(
        parameters=size / 2e6, megabytes=size / 1e6, steps=STEPS, countries=len(world.COUNTRIES)
    )


def _goals(results: Evaluation) -> list[str]:
    rows = [[g.name, g.goal, g.measured, "yes" if g.met else "**no**"] for g in goals(results)]
    return [
        "## What was asked, what was reached\n\nThe goals were fixed before the model was trained.\n",
        tables.table(["what", "goal", "measured", "met"], rows),
    ]


def _trainings(results: Mapping[str, Evaluation]) -> list[str]:
    if len(results) < 2:
        return []
    measured: list[Mapping[str, str]] = [{g.name: g.measured for g in goals(one)} for one in results.values()]
    rows = [[name, *[one.get(name, "") for one in measured]] for name in measured[0]]
    return [TRAININGS.format(count=len(results)), tables.table(["what", *results], rows)]


def _tail(vectors: TraitVectors, population: str, cautions: Sequence[str]) -> str:
    from guardrail.demo.phrasings import CLAUSES, GRADED, HEADS, TAILS

    kept = ", ".join(f"{t} {s.positive} / {s.negative}" for t, s in vectors.provenance.traits.items())
    composed = len(set(HEADS)) * len(CLAUSES) * len(set(TAILS))
    return CANNOT.format(
        facts=sum(map(len, world.FACTS.values())),
        more="".join(f"- {caution}\n" for caution in cautions),
        poles=len(CHARACTERS),
        templates=f"{len(GRADED.train) + composed:,}",
        nouns=sum(map(len, (nouns.PERSONS, nouns.PROBLEMS, nouns.WORKS, nouns.THEMES))),
        made_up=30,
        method=vectors.provenance.method,
        notes=vectors.provenance.notes,
        kept=kept,
        population=population,
    )
