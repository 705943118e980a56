"""The text guard of the detection tables: only the wheel that was read runs, and texts are read once."""

import os
import pickle
import zipfile

import pytest

from benchmarks.real import cost, guards_timed, nanoguard, results, text_guard
from benchmarks.real.prompt_files import Prompt
from guardrail.bench.cases import endless
from guardrail.testing import tiny_model, tiny_tokenizer
from guardrail.types import Message


class Lengths:
    """A text guard that scores lengths and remembers what it read."""

    def __init__(self):
        self.read = []

    def logits(self, texts):
        self.read += texts
        return [float(len(text)) for text in texts]


def test_another_wheel_is_refused_and_nothing_is_kept(tmp_path, monkeypatch):
    def download(package, folder):
        with zipfile.ZipFile(folder / "other.whl", "w") as wheel:
            wheel.writestr("nanoguard/model.py", "raise SystemExit")
        return folder / "other.whl"

    monkeypatch.setattr(nanoguard, "download", download)
    monkeypatch.setattr(nanoguard, "FOLDER", tmp_path)
    monkeypatch.setattr(nanoguard, "UNPACKED", tmp_path / "unpacked")
    with pytest.raises(
        ValueError, match=rf"metatronnanoguard==0.1.0: the sha256 is .*, not {nanoguard.SHA256}"
    ):
        nanoguard.fetch()
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_loads_anything_else_is_refused(tmp_path):
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(os.getcwd))
    with pytest.raises(pickle.UnpicklingError, match=r"getcwd does not belong into a tokenizer"):
        nanoguard.unpickled(path)


def test_equal_texts_are_read_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RUNS", tmp_path)
    turn = Message("assistant", "hello")
    prompts = [Prompt((Message("user", text),), "s", harm=False) for text in ("a", "bbb", "a")]
    prompts.append(Prompt((Message("user", "x"), turn, Message("user", "bbb")), "s", harm=False))
    first, second = Lengths(), Lengths()
    assert text_guard.scores(first, prompts).tolist() == [1, 3, 1, 3]
    assert text_guard.scores(second, prompts).tolist() == [1, 3, 1, 3]
    assert (first.read, second.read) == (["a", "bbb"], [])


def test_both_guards_are_timed_on_the_same_message(monkeypatch):
    monkeypatch.setattr(guards_timed, "LENGTHS", (40,))
    model, bare = (endless(tiny_model(seed=0)) for _ in range(2))
    couple = cost.Couple(name="tiny", model=model, bare=bare, tokenizer=tiny_tokenizer(), goals={})
    text = Lengths()
    held = {case.name: case.holds(case.guarded(), case.bare()) for case in guards_timed.cases(text, couple)}
    assert held == {"40 tokens, guard": True, "40 tokens, NanoGuard": True}
    assert text.read == [couple.asked(40)[0]["content"]]
