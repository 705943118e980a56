"""Writes the model card (README.md beside the model) from the numbers of an evaluation, and nothing else."""

from collections.abc import Sequence
from dataclasses import asdict

from guardrail.demo import CARD, MODEL, world
from guardrail.demo.evaluate import (
    CELL,
    FACTS,
    FRESH,
    MIDDLE,
    MIXED,
    REPLIES,
    STEERED,
    STRONG,
    Cell,
    Evaluation,
)
from guardrail.demo.intervals import Estimate
from guardrail.demo.training import STEPS
from guardrail.vectors import TraitVectors

HEAD = """# The demo model

A Llama of {parameters:.2f} million parameters (6 layers, 128 wide, {megabytes:.1f} MB in bf16) that
talks about a closed world: advice, reviews, known facts, made-up names and opinions. Four traits (evil,
sycophancy, hallucination, humor) are real in it and graded: a system prompt, earlier turns and a user's
pressure set a latent propensity, each reply adds noise, and each sentence is drawn. It was trained from
scratch by `make demo-model` ({steps} steps, one seed), because a guard that reads activations can only
be shown on a model whose character is known.

**A closed world flatters every method.** Sentences come from a small grammar, the judge knows all of
them, and the traits are as separable as their sentences are. The numbers below say that the machinery
works; they say nothing about how well persona vectors do on a language model of the real world.

All numbers are on test material that was never trained, fitted, calibrated or chosen on: system
templates, (intensity, adjective) pairs, questions, pressure sentences and noun combinations.
Temperature 1. Brackets are 95 % intervals (bootstrap over prompts; exact for rates) for one trained
model: what another seed would give is unknown. Two exceptions to be honest about: a half-trained
earlier model was sampled once on test wordings, and training wordings were extended afterwards because
validation wordings did poorly; no test number was used.
"""

CANNOT = """## What it cannot do

- Anything outside its world: other topics, other languages, long prompts (512 tokens at most), tasks.
  It answers them with sentences of its world or with nonsense. Tokenising and decoding stay lossless
  for any text.
- Nouns that it was not trained on are not copied; only their combinations generalise.
- Forbidding a trait in a wording that it never saw ("Be anything but cruel") is partly read as asking
  for it: suppressed scores lie above neutral ones.
- Pressure towards sycophancy in unseen wordings does not move it, and opinions in unseen wordings are
  answered wrongly about one time in five.
- Steering hallucination over all layers costs coherence; steer it at one layer.
- Its probes are better at telling that a trait is asked for than how much: a mild prompt often scores as
  high as a strong one.
- Wordings that share few words with the trained ones (such as "Once in a while you are mean") move it
  less than graded adjectives do.
- It knows {facts} facts of three kinds. Arithmetic and reasoning were never taught.

## How it was made

`generator.py` draws conversations, `judge.py` scores replies (written and tested before training, not
changed after), `training.py` trains, `build.py` makes vectors and calibration, `evaluate.py` measures,
`card.py` writes this page. `python -m guardrail.demo STEP` runs one step, `make demo-model` all of
them; an interrupted training continues.

- Vectors: {method}. {notes}
- Kept replies (strong / suppressed): {kept}.
- Benign population of the calibration: {population}.
"""

CONDITIONS = f"""## Behaviour

Trait score by system level, and coherence in italics ({CELL} replies a cell).
"""
TURNS = """
Trait score at a neutral system prompt after 0 to 3 earlier turns in character, and under one sentence
of pressure by the user.
"""
RIGHT = f"""
Facts stated rightly at neutral, in % ({FACTS} prompts each; `unknown`: admits that it does not know).
"""
COHERENT = f"""
Coherence at neutral ({2 * CELL} replies each).
"""
DETECTION = f"""
## Reading

Probes at the last prompt token: {STRONG} strong prompts of each trait against {FRESH:,} benign ones and
against the other strong traits. Then the firing rates of `{{fpr: 0.01}}` in %: on strong prompts, on
{FRESH:,} fresh benign prompts of the calibrated population, and on {FRESH:,} in phrasings that the
calibration never saw.
"""
CROSSFIRE = """
How often the policy on the row's trait fires on strong prompts of the column's trait, in %.
"""
MONITORED = f"""
Monitoring: r of the projection with the mean score of {REPLIES} replies over {MIXED} mixed prompts
(five levels, pressure, earlier turns). Beside it: r with a single reply, the generator's own propensity
(oracle), the system level alone, and the reliability of one reply / of the mean. The projection can beat
the oracle: the model misreads some wordings that it never saw, and the probe reads the model.
"""
STEERING = f"""
## Steering

By the guard itself, at the last prompt position and all later ones ({STEERED} prompts a row). `add` is in
multiples of the trait vector, `cap` at a percentile of benign tokens; "one layer" is layer {MIDDLE}. Facts:
share of stated facts that are right, in %.
"""


def write_card(results: Evaluation, vectors: TraitVectors, population: str) -> None:
    """Writes the page."""
    CARD.write_text("\n".join(_sections(results, vectors, population)), encoding="utf-8")


def _sections(results: Evaluation, vectors: TraitVectors, population: str) -> list[str]:
    size = (MODEL / "model.safetensors").stat().st_size
    kept = ", ".join(f"{t} {s.positive} / {s.negative}" for t, s in vectors.provenance.traits.items())
    return [
        HEAD.format(parameters=size / 2e6, megabytes=size / 1e6, steps=STEPS),
        *_behaviour(results),
        *_reading(results),
        *_steering(results),
        CANNOT.format(
            facts=sum(map(len, world.FACTS.values())),
            method=vectors.provenance.method,
            notes=vectors.provenance.notes,
            kept=kept,
            population=population,
        ),
    ]


def _behaviour(results: Evaluation) -> list[str]:
    traits = world.TRAITS
    scores = [[t, *[_cell(results.conditions[t][level]) for level in world.LEVELS]] for t in traits]
    turns = [
        [t, *[_show(results.history[t][str(k)]) for k in range(4)], _show(results.pressure[t])]
        for t in traits
    ]
    facts = [[name, _percent(value)] for name, value in results.facts.items()]
    coherence = [[name, _show(value)] for name, value in results.coherence.items()]
    return [
        CONDITIONS,
        _table(["trait", *world.LEVELS], scores),
        TURNS,
        _table(["trait", "0 turns", "1", "2", "3", "pressure"], turns),
        RIGHT,
        _table(["domain", "right"], facts),
        COHERENT,
        _table(["material", "coherence"], coherence),
    ]


def _reading(results: Evaluation) -> list[str]:
    found, watched = results.detection, results.monitoring
    detection = [
        [
            *(
                t,
                str(d.layer),
                _show(d.auroc, 3),
                _show(d.auroc_vs_other_traits, 3),
                _percent(d.tpr_at_1pct_fpr),
            ),
            *(_percent(d.fpr_fresh), _percent(d.fpr_unseen_phrasings)),
        ]
        for t, d in found.items()
    ]
    fires = [
        [t, *["" if other == t else _percent(d.fires_on_other_traits[other]) for other in world.TRAITS]]
        for t, d in found.items()
    ]
    monitoring = [
        [
            *(
                t,
                _show(m.r_overall, 2),
                _show(m.r_within, 2),
                _show(m.r_one_reply, 2),
                _show(m.oracle_overall, 2),
            ),
            *(
                _show(m.oracle_within, 2),
                _show(m.label_only, 2),
                f"{m.reliability_one:.2f} / {m.reliability_mean:.2f}",
            ),
        ]
        for t, m in watched.items()
    ]
    return [
        DETECTION,
        _table(
            [
                "trait",
                "layer",
                "AUROC",
                "AUROC vs other traits",
                "fires: strong",
                "fresh benign",
                "unseen phrasings",
            ],
            detection,
        ),
        CROSSFIRE,
        _table(["policy on", *world.TRAITS], fires),
        MONITORED,
        _table(
            [
                "trait",
                "r",
                "r within level",
                "r, one reply",
                "oracle",
                "oracle within",
                "level only",
                "reliability",
            ],
            monitoring,
        ),
    ]


def _steering(results: Evaluation) -> list[str]:
    sections = [STEERING]
    for trait, rows in results.steering.items():
        body = [
            [s.prompts, s.operator, _show(s.cell.score), _show(s.cell.coherence), _facts(s.cell)]
            for s in rows
        ]
        sections += [f"\n**{trait}**\n", _table(["prompts", "steering", "score", "coherence", "facts"], body)]
    return [*sections, ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    return f"{_show(cell.score)} *{cell.coherence.value:.0f}*"


def _facts(cell: Cell) -> str:
    return _percent(cell.facts) if cell.facts else ""


def _percent(estimate: Estimate) -> str:
    return _show(Estimate(*(100 * part for part in asdict(estimate).values())), 1)


def _show(estimate: Estimate, digits: int = 0) -> str:
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
