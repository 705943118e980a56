"""Scores that wait until somebody looks are the scores."""

import copy
import pickle

from guardrail.policy.lazy_scores import LazyScores
from guardrail.types import Decision, Score

ONE = Score(policy="p", trait="evil", layer=2, score=0.5, threshold=1.0, fired=False, mode="enforce")


def test_they_are_made_once_and_not_before_somebody_looks():
    made = []

    def make():
        made.append(1)
        return [ONE]

    scores = LazyScores(make)
    assert made == []
    assert list(scores) == [ONE]
    assert (len(scores), scores[0], scores[:1], made) == (1, ONE, (ONE,), [1])


def test_a_decision_with_them_equals_one_with_a_tuple():
    lazy = Decision(status="evaluated", scores=LazyScores(lambda: [ONE]))
    eager = Decision(status="evaluated", scores=(ONE,))
    assert lazy == eager
    assert eager == lazy
    assert (hash(lazy), repr(lazy)) == (hash(eager), repr(eager))
    assert lazy != Decision(status="evaluated")


def test_they_travel_as_a_tuple():
    lazy = Decision(status="evaluated", scores=LazyScores(lambda: iter([ONE])))
    for arrived in (pickle.loads(pickle.dumps(lazy)), copy.deepcopy(lazy)):
        assert arrived == lazy
        assert type(arrived.scores) is tuple
