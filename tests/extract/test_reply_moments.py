"""Activations of kept pairs: the planted direction comes back, positions are what they say, sums stream."""

import gc
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from extraction import LetterJudge, contents, definition, direction, planted_subject
from tiny import TOKENIZER

from guardrail.engines import Continuation
from guardrail.errors import ExtractionError
from guardrail.extract import reply_moments as activations
from guardrail.extract.filter import Pair, kept_pairs
from guardrail.extract.judgements import judge_rollouts
from guardrail.extract.moments import NEGATIVE, POSITIONS, POSITIVE, Moments
from guardrail.extract.prompts import trait_prompts
from guardrail.extract.reply_moments import reply_moments, reply_states
from guardrail.extract.rollouts import RolloutSettings, roll_out
from guardrail.extract.stability import cosines
from guardrail.extract.subject import Subject
from guardrail.plugins.protocols import COHERENCE
from guardrail.testing import tiny_model

RUBRICS = {"shouting": "{question} {answer}", COHERENCE: "{answer}"}


@pytest.fixture(scope="module")
def subject():
    return planted_subject()


def made(subject, folder, samples=3, one=None):
    settings = RolloutSettings(samples=samples, max_new_tokens=8, batch=16)
    rollouts = roll_out(subject, "shouting", trait_prompts(one or definition()), settings, folder)
    return judge_rollouts(rollouts, LetterJudge(), RUBRICS, folder)


@pytest.fixture(scope="module")
def judged(subject, tmp_path_factory):
    return made(subject, tmp_path_factory.mktemp("judged"))


@pytest.fixture(scope="module")
def pairs(judged):
    return kept_pairs(judged, "shouting")[0]


@pytest.mark.parametrize("position", POSITIONS)
def test_a_planted_direction_is_recovered(subject, judged, pairs, tmp_path, position):
    found = reply_moments(subject, judged, pairs, tmp_path).difference(position)
    assert found.shape == (5, 32)
    assert cosines(found[2:3], direction()[None])[0] > 0.99
    assert np.linalg.norm(found[2]) == pytest.approx(100, rel=0.05)
    assert cosines(found[1:2], direction()[None])[0] < 0.9, "layer 1 is before the plant"


def test_swapping_the_sides_flips_the_sign(subject, judged, pairs, tmp_path):
    swapped = [Pair(p.negative, p.positive, p.question) for p in pairs]
    there = reply_moments(subject, judged, pairs, tmp_path / "a").difference("response_mean")
    back = reply_moments(subject, judged, swapped, tmp_path / "b").difference("response_mean")
    assert np.allclose(there, -back, atol=1e-4)


def test_batched_sums_equal_the_straightforward_loop(judged, pairs, tmp_path):
    """One prompt at a time with output_hidden_states=True, in float64; on the model without the plant, of
    whose wrapped block transformers would give the inner output."""
    subject = Subject(tiny_model(), TOKENIZER)
    moments = reply_moments(subject, judged, pairs, tmp_path)
    rollouts, sums = judged.rollouts, np.zeros((2, 3, 4, 32))
    for pair in pairs:
        for side, row in ((POSITIVE, pair.positive), (NEGATIVE, pair.negative)):
            prompt = subject.render(rollouts.prompts[rollouts.place(row)[0]].messages).ids
            reply = rollouts.reply(row)
            spoken = reply.ids[:-1] if reply.ended else reply.ids
            with torch.no_grad():
                hidden = subject.model(
                    torch.tensor([[*prompt, *spoken]]), output_hidden_states=True
                ).hidden_states
            states = torch.stack(hidden[:4])[:, 0].double().numpy()
            n = len(prompt)
            sums[side] += [states[:, n:].mean(1), states[:, n - 1], states[:, :n].mean(1)]
    gap = (sums[POSITIVE] - sums[NEGATIVE]) / len(pairs)
    for position, expected in zip(POSITIONS, gap, strict=True):
        found = moments.difference(position)[:4]
        assert (cosines(found, expected.astype(np.float32))[1:] > 0.9999).all()
        assert np.allclose(found, expected, atol=0.02)


def test_the_border_is_where_it_was_when_the_reply_was_generated(subject, judged):
    """The reply's ids are kept: text that merges with the prompt when tokenised again does not move it."""

    class Merging:
        prompts = judged.rollouts.prompts
        place = judged.rollouts.place

        def reply(self, row):
            return Continuation("irrelevant", (40, 41, 42, TOKENIZER.eos_token_id), True)

    row = judged.rollouts.row(0, 0)
    (states,) = reply_states(subject, Merging(), [row])
    prompt = subject.render(judged.rollouts.prompts[0].messages).ids
    (alone,) = subject.means([[*prompt, 40, 41, 42]], [[(len(prompt), len(prompt) + 3)]])
    assert np.allclose(states[0], alone[0], atol=1e-5)


def test_states_do_not_depend_on_the_batch(subject, judged, pairs):
    rows = [pair.positive for pair in pairs[:6]]
    together = reply_states(subject, judged.rollouts, rows)
    for row, states in zip(rows, together, strict=True):
        assert np.allclose(states, reply_states(subject, judged.rollouts, [row])[0], atol=1e-4)


class Stopping:
    """A report that breaks off once so many pairs are done."""

    def __init__(self, at):
        self.at, self.seen = at, []

    def __call__(self, _stage, done, _total):
        self.seen.append(done)
        if done == self.at:
            raise KeyboardInterrupt


def test_cut_off_after_any_batch_it_ends_at_the_same_bytes(subject, judged, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(activations, "PAIRS", 4)
    reply_moments(subject, judged, pairs, tmp_path / "whole")
    for batches in range(1, len(pairs) // 4):
        folder, stopping = tmp_path / str(batches), Stopping(4 * batches)
        with pytest.raises(KeyboardInterrupt):
            reply_moments(subject, judged, pairs, folder, stopping)
        again = Stopping(None)
        reply_moments(subject, judged, pairs, folder, again)
        assert again.seen[0] == 4 * batches, "what was read is not read again"
        assert contents(folder) == contents(tmp_path / "whole")


def test_sums_of_other_pairs_are_refused(subject, judged, pairs, tmp_path):
    reply_moments(subject, judged, pairs, tmp_path)
    with pytest.raises(ExtractionError, match="other rollouts"):
        reply_moments(subject, judged, pairs[1:], tmp_path)


def test_sums_are_what_was_saved(subject, judged, pairs, tmp_path):
    moments = reply_moments(subject, judged, pairs, tmp_path)
    moments.save(tmp_path / "copy", "recipe")
    back = Moments.load(tmp_path / "copy", "recipe")
    assert back is not None
    assert np.array_equal(back.sums, moments.sums)
    assert (back.batches, back.counts.tolist()) == (moments.batches, moments.counts.tolist())
    assert back.counts.sum() == len(pairs)
    positive, negative = moments.question_means("response_mean")
    assert positive.shape == negative.shape == (4, 5, 32)


class Many:
    """Rollouts of any number, all alike, that were never generated."""

    prompts, journal = trait_prompts(definition()), SimpleNamespace(recipe={"pool": "many"})

    def __init__(self, samples):
        self.samples, self.rollouts = samples, self

    def place(self, row):
        return row // self.samples, row % self.samples

    def reply(self, row):
        return Continuation("abc", (40, 41, 42 + row % 5), False)

    def pairs(self):
        every = [(prompt, sample) for prompt in range(8) for sample in range(self.samples)]
        return [Pair(p * self.samples + s, (8 + p) * self.samples + s, p % 4) for p, s in every]


def test_memory_does_not_grow_with_the_number_of_rollouts(tmp_path, monkeypatch):
    """Five times the rollouts, the same peak. Garbage is collected, since when Python does is chance."""
    monkeypatch.setattr(activations, "PAIRS", 8)
    subject = Subject(tiny_model(), TOKENIZER, rows=16)

    def peak(samples):
        many = Many(samples)
        pairs = many.pairs()
        tracemalloc.start()
        try:
            reply_moments(subject, many, pairs, tmp_path / str(samples), lambda *_: gc.collect())
            return tracemalloc.get_traced_memory()[1], len(pairs)
        finally:
            tracemalloc.stop()

    peak(2)
    (few, fewer), (many, more) = peak(3), peak(15)
    assert more == 5 * fewer
    assert many < 1.2 * few, "the states of so many more pairs would be three times as much"


def test_an_ended_reply_of_nothing_still_has_a_state(subject, judged):
    class Ended:
        prompts, place = judged.rollouts.prompts, judged.rollouts.place

        def reply(self, row):
            return Continuation("", (TOKENIZER.eos_token_id,), True)

    assert np.isfinite(reply_states(subject, Ended(), [0])).all()
