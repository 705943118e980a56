"""Long runs go on from where they were interrupted, and from nothing else."""

import numpy as np
import pytest
from tiny import TOKENIZER

from guardrail.errors import ExtractionError
from guardrail.extract.subject import Subject
from guardrail.interpret.accuracy import scoring
from guardrail.interpret.accuracy.items import Item
from guardrail.interpret.accuracy.personas import Persona
from guardrail.interpret.accuracy.prompts import Asker
from guardrail.interpret.accuracy.study import accuracy
from guardrail.interpret.heads.attending import attending
from guardrail.interpret.heads.contexts import contexts
from guardrail.interpret.heads.results import Head
from guardrail.interpret.heads.scaling import ablation
from guardrail.interpret.heads.words import NEUTRAL
from guardrail.interpret.lens import study
from guardrail.interpret.lens.study import LensStudy
from guardrail.interpret.lens.tasks import Item as Question
from guardrail.interpret.resuming import packed, unpacked
from guardrail.testing import tiny_model

ITEMS = [Item(f"Is {x} wet?", ("sand", "water"), 1, "things") for x in "abcdef"]
PIRATE = Persona("pirate", "You are a pirate.")
GROUPS = {"capital": tuple("CDEFGH"), NEUTRAL: tuple("cdefgh")}
QUESTIONS = [Question(persona=f"You are {x}.", prompt=f"{x} is", answers=(x,)) for x in "abcdef"]


class Interrupted(Exception):
    pass


class Told:
    """What a run reports; it is interrupted once so many rows of a stage are done."""

    def __init__(self, stage="", after=None):
        self.stage, self.after, self.said = stage, after, []

    def __call__(self, stage, done, total):
        self.said.append((stage, done, total))
        if stage.endswith(self.stage) and done == self.after:
            raise Interrupted

    def begins(self, stage):
        """How many rows a stage began with."""
        return next(done for name, done, _ in self.said if name.endswith(stage))


@pytest.fixture(scope="module")
def asker():
    return Asker(Subject(tiny_model("gpt2"), TOKENIZER, chat_template="builtin:plain"), "text", "letters")


def measured(asker, report, work, items=ITEMS):
    return accuracy(asker, items, [PIRATE], "tiny", report, work)


def headed(asker, report, work, items=ITEMS):
    given = contexts(asker, GROUPS, ("You are {who}.",), items[:3])
    return attending(asker, given, "tiny", report, work)


def scaled(asker, report, work, items=ITEMS):
    given = contexts(asker, GROUPS, ("You are {who}.",), items[:2])
    return ablation(asker, given, items[:2], [Head(1, 0)], 0.0, report, work)


def looked(asker, report, work, items=QUESTIONS):
    return LensStudy(asker.subject, "tiny", report=report, work=work).run("mine", items)


RUNS = [
    (measured, "prompts", 8, ITEMS[1:]),
    (headed, "attention", 2, ITEMS[1:]),
    (scaled, "after", 4, ITEMS[1:]),
    (looked, "without persona", 4, QUESTIONS[1:]),
]


@pytest.mark.parametrize(("run", "stage", "after", "others"), RUNS)
def test_an_interrupted_run_goes_on_where_it_was(run, stage, after, others, asker, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "PART", 4)
    monkeypatch.setattr(study, "TOGETHER", 2)
    whole = run(asker, Told(), None)
    with pytest.raises(Interrupted):
        run(asker, Told(stage, after), tmp_path)
    told = Told()
    assert run(asker, told, tmp_path) == whole
    assert told.begins(stage) == after
    again = Told()
    run(asker, again, tmp_path)
    assert all(done == total for _, done, total in again.said)
    with pytest.raises(ExtractionError, match="another recipe: prompts"):
        run(asker, Told(), tmp_path, others)


@pytest.mark.parametrize(("run", "reuses"), [(measured, False), (headed, False), (looked, True)])
def test_another_model_begins_anew(run, reuses, asker, tmp_path):
    run(asker, Told(), tmp_path)
    subject = Subject(tiny_model("gpt2", seed=5), TOKENIZER, chat_template="builtin:plain")
    other = Asker(subject, "text", "letters")
    if not reuses:
        with pytest.raises(ExtractionError, match="another recipe: model"):
            run(other, Told(), tmp_path)
        return
    # models side by side share a folder, and not a file
    told = Told()
    assert run(other, told, tmp_path) == run(other, Told(), None)
    assert told.begins("with persona") == 0


def test_heads_scaled_otherwise_are_asked_anew(asker, tmp_path):
    scaled(asker, Told(), tmp_path)
    told = Told()
    given = contexts(asker, GROUPS, ("You are {who}.",), ITEMS[:2])
    found = ablation(asker, given, ITEMS[:2], [Head(1, 0)], 0.5, told, tmp_path)
    assert found == ablation(asker, given, ITEMS[:2], [Head(1, 0)], 0.5)
    assert told.begins("before") > 0
    assert told.begins("after") == 0


def test_numbers_come_back_exactly():
    values = np.random.default_rng(0).normal(size=(3, 2, 2))
    assert np.array_equal(unpacked(packed(values), -1, 2, 2), values)
