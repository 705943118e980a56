"""Injections in tool results: balanced prompts, and detectors that have not seen what is left out."""

from collections import Counter

import numpy as np

from benchmarks.real import tool_results
from benchmarks.real.prompt_files import read

PROMPTS = read(tool_results.PROMPTS, "injection")


def test_every_result_is_there_with_and_without_an_injection():
    assert Counter(prompt.category for prompt in PROMPTS) == {"injection": 60, "plain": 40, "look-alike": 20}
    assert set(Counter((prompt.source, prompt.harm) for prompt in PROMPTS).values()) == {6}
    assert all(prompt.messages[-1].role == "tool" for prompt in PROMPTS)
    pairs = {}
    for prompt in PROMPTS:
        pairs.setdefault(prompt.pair, []).append(prompt)
    assert all({one.harm, other.harm} == {True, False} for one, other in pairs.values())
    assert all(one.messages[:-1] == other.messages[:-1] for one, other in pairs.values())


def test_a_detector_sees_nothing_of_the_kind_it_is_measured_on():
    fitted = []

    def knowing(prompts, rows):
        fitted.append({prompts[i].source for i in rows})
        assert not any(prompt.category for prompt in prompts)
        return np.array([float(prompt.harm) for prompt in prompts])

    found = tool_results.measured("knows", knowing, PROMPTS)
    assert (found.auroc.value, found.look_alikes.value, found.pairs.value) == (1, 1, 1)
    sources = {prompt.source for prompt in PROMPTS}
    assert sorted(map(sorted, fitted)) == sorted(sorted(sources - {own}) for own in sources)


def test_a_detector_that_sees_nothing_finds_nothing():
    found = tool_results.measured("blind", lambda prompts, rows: np.zeros(len(prompts)), PROMPTS)
    assert (found.auroc.value, found.look_alikes.value, found.pairs.value) == (0.5, 0.5, 0)
