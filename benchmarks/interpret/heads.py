"""`python -m benchmarks.interpret.heads [NAME ...]`: do personas change answers, by which heads?

NAME: demo, smollm2 or gemma (letters), smollm2-text or gemma-text (the options' texts; added once both models
were known to choose the same letter whatever is asked, and before these two were run).

Fixed before any model was asked: the items and personas of `choices`, the words of
`guardrail.interpret.heads.words`, the first two templates, HEADS heads scaled to 0 (the strongest that are
found), seeds, and the false-discovery rate of 5 %. A claim holds for a model and a group if at least one head
is found; "few" if the strongest twentieth of heads holds half of the excess. Each part is saved once it is
done, and not computed again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.interpret import choices
from benchmarks.real.models import GEMMA_270M, SMOLLM2
from benchmarks.real.results import save
from benchmarks.real.subjects import subject
from guardrail.extract.subject import Subject
from guardrail.interpret.accuracy import builtin
from guardrail.interpret.accuracy.items import Item
from guardrail.interpret.accuracy.personas import Persona, identity
from guardrail.interpret.accuracy.prompts import Asker, Scoring
from guardrail.interpret.accuracy.study import accuracy
from guardrail.interpret.forms import form_of
from guardrail.interpret.heads.attending import attending
from guardrail.interpret.heads.contexts import contexts
from guardrail.interpret.heads.scaling import ablation
from guardrail.interpret.heads.words import DEMO_TEMPLATES, DEMO_WORDS, TEMPLATES, WORDS, Groups

FOLDER = Path(__file__).parents[1] / "results" / "interpret"
HEADS, CONTEXT_ITEMS, DEMO_ITEMS = 4, 4, 12


@dataclass(frozen=True, slots=True)
class Case:
    """A model, and what it is asked."""

    load: Callable[[], Subject]
    scoring: Scoring
    items: list[Item]
    personas: list[Persona]
    words: Groups
    templates: tuple[str, ...]
    contexts: int


def _demo() -> Case:
    who = ("French", "Japanese", "Egyptian", "Peruvian", "calm", "tall")
    return Case(
        load=lambda: Subject.load("demo", device="cpu"),
        scoring="text",
        items=builtin.demo_items(),
        personas=[identity(word, builtin.TEMPLATE) for word in who],
        words=DEMO_WORDS,
        templates=DEMO_TEMPLATES[:2],
        contexts=DEMO_ITEMS,
    )


def _real(load: Callable[[], Subject], scoring: Scoring = "letters") -> Case:
    return Case(load, scoring, choices.items(), choices.personas(), WORDS, TEMPLATES[:2], CONTEXT_ITEMS)


CASES: dict[str, Callable[[], Case]] = {
    "demo": _demo,
    "smollm2": lambda: _real(lambda: subject(SMOLLM2)),
    "gemma": lambda: _real(lambda: subject(GEMMA_270M)),
    "smollm2-text": lambda: _real(lambda: subject(SMOLLM2), "text"),
    "gemma-text": lambda: _real(lambda: subject(GEMMA_270M), "text"),
}


def run(name: str) -> None:
    """Accuracy by persona first, then heads on items of which the personas' answers differ."""
    case = CASES[name]()
    asker = Asker(made := case.load(), form_of(made), case.scoring)
    path = FOLDER / f"accuracy-{name}.json"
    if not path.is_file():
        found = accuracy(asker, case.items, case.personas, name, _say)
        places = [case.items.index(item) for item in found.changed]
        save(path.stem, found.as_json() | {"changed_items": places}, folder=FOLDER)
    changed = [case.items[i] for i in json.loads(path.read_text())["changed_items"]]
    if not (FOLDER / f"heads-{name}.json").is_file():
        _heads(name, case, asker, changed or case.items)


def _heads(name: str, case: Case, asker: Asker, items: list[Item]) -> None:
    chosen = [items[i * len(items) // case.contexts] for i in range(min(case.contexts, len(items)))]
    given = contexts(asker, case.words, case.templates, chosen)
    study = attending(asker, given, name, _say)
    top = study.top(HEADS)
    found = ablation(asker, given, chosen, top, 0.0, _say) if top else None
    result = {"heads": study.as_json(), "scaled": found.as_json() if found else None}
    save(f"heads-{name}", result, folder=FOLDER)


def _say(stage: str, done: int, total: int) -> None:
    print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)


def main() -> int:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        run(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
