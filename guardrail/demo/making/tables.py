# pyright: basic
"""The model card's tables, in Markdown."""

from collections.abc import Sequence

from guardrail.demo import world
from guardrail.demo.making.evaluation.behaviour import CELL
from guardrail.demo.making.evaluation.capability import COUNT
from guardrail.demo.making.evaluation.detection import FRESH, STRONG
from guardrail.demo.making.evaluation.monitoring import MIXED, REPLIES
from guardrail.demo.making.evaluation.results import Cell, Evaluation
from guardrail.demo.making.evaluation.steering import MIDDLE, STEERED
from guardrail.demo.making.goals import shown
from guardrail.statistics.intervals import Estimate

CONDITIONS = f"""
## Behaviour

Score by system level (unseen phrasings), coherence in italics, SD of single replies in parentheses ({CELL}
replies a cell).
"""
TURNS = """
Score at a neutral system prompt after 0 to 3 earlier turns in character, and under one sentence of pressure.
"""
CAPABLE = f"""
Closed tasks in unseen wordings and combinations, answered greedily ({COUNT} each), in %.
"""
COHERENT = """
Coherence at neutral.
"""
DETECTION = f"""
## Reading

Probes at the last prompt token: {STRONG} strong prompts of each pole against {FRESH:,} benign ones in unseen
phrasings, and against the strong prompts of the other traits (beside it the raw and the orthogonalised
difference vector, each at its best layer). Then the firing rates of `{{fpr: 0.01}}` in %: on strong prompts,
on {FRESH:,} fresh benign prompts of the calibrated population, and on {FRESH:,} in phrasings that the
calibration never saw. Impoliteness is the low end of politeness (`fires: below`).
"""
CROSSFIRE = """
How often the policy on the row's pole fires on strong prompts of the column's pole, in %.
"""
MONITORED = f"""
Monitoring: r of the projection with the mean score of {REPLIES} replies over {MIXED} mixed prompts (five
levels, pressure, earlier turns). Beside it: r with a single reply, the generator's own propensity (oracle),
the system level alone, and the reliability of one reply / of the mean. The projection can beat the oracle:
the model misreads some wordings that it never saw, and the probe reads the model.
"""
STEERING = f"""
## Steering

By the guard itself, at the last prompt position and all later ones ({STEERED} prompts a row). `add` is in
multiples of the trait vector, `cap` at a percentile of benign tokens; "one layer" is layer {MIDDLE}. Facts:
share of stated facts that are right, in %.
"""


def behaviour(results: Evaluation) -> list[str]:
    """Levels, turns, capability and coherence."""
    scores = [[p, *[_cell(row[level]) for level in world.LEVELS]] for p, row in results.conditions.items()]
    turns = [
        [p, *[shown(row[str(k)]) for k in range(4)], shown(results.pressure[p])]
        for p, row in results.history.items()
    ]
    coherence = [[name, shown(value)] for name, value in results.coherence.items()]
    return [
        CONDITIONS,
        table(["pole", *world.LEVELS], scores),
        TURNS,
        table(["pole", "0 turns", "1", "2", "3", "pressure"], turns),
        CAPABLE,
        table(["task", "right"], _capable(results)),
        COHERENT,
        table(["material", "coherence"], coherence),
    ]


def _capable(results: Evaluation) -> list[list[str]]:
    found = results.capability
    named = {
        **found.tasks,
        "all known facts": found.facts,
        "own country, all nationalities": found.own_country,
        "admits to have no country": found.no_country,
        **{f"names {kind} in a reply (T = 1)": value for kind, value in found.copied.items()},
    }
    return [[name, _percent(value)] for name, value in named.items()]


def reading(results: Evaluation) -> list[str]:
    """Detection, crossfire and monitoring."""
    found = results.detection
    fires = [
        [p, *["" if other == p else _percent(d.fires_on_other_poles[other]) for other in world.POLES]]
        for p, d in found.items()
    ]
    head = ("pole", "layer", "AUROC", "vs other traits", "raw", "orthogonalised")
    return [
        DETECTION,
        table([*head, "fires: strong", "fresh benign", "unseen phrasings"], _detection(results)),
        CROSSFIRE,
        table(["policy on", *world.POLES], fires),
        MONITORED,
        table(["pole", *_MONITORING], _monitoring(results)),
    ]


def _detection(results: Evaluation) -> list[list[str]]:
    rows = []
    for pole, d in results.detection.items():
        areas = (d.auroc, d.auroc_vs_other_traits, d.vs_others_raw, d.vs_others_orthogonalised)
        rates = (d.tpr_at_1pct_fpr, d.fpr_fresh, d.fpr_unseen_phrasings)
        rows.append([pole, str(d.layer), *[shown(a, 3) for a in areas], *[_percent(r) for r in rates]])
    return rows


_MONITORING = ("r", "r within level", "r, one reply", "oracle", "oracle within", "level only", "reliability")


def _monitoring(results: Evaluation) -> list[list[str]]:
    rows = []
    for pole, m in results.monitoring.items():
        found = (m.r_overall, m.r_within, m.r_one_reply, m.oracle_overall, m.oracle_within, m.label_only)
        reliability = f"{m.reliability_one:.2f} / {m.reliability_mean:.2f}"
        rows.append([pole, *[shown(r, 2) for r in found], reliability])
    return rows


def steering(results: Evaluation) -> list[str]:
    """One table for each trait."""
    sections = [STEERING]
    head = ["prompts", "steering", "score", "coherence", "facts"]
    for trait, rows in results.steering.items():
        body = [
            [s.prompts, s.operator, shown(s.cell.score), shown(s.cell.coherence), _facts(s.cell)]
            for s in rows
        ]
        sections += [f"\n**{trait}**\n", table(head, body)]
    return sections


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    return f"{shown(cell.score)} *{cell.coherence.value:.0f}* ({cell.sd:.0f})"


def _facts(cell: Cell) -> str:
    return _percent(cell.facts) if cell.facts else ""


def _percent(estimate: Estimate) -> str:
    return shown(estimate.times(100), 1)
