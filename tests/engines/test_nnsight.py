"""The executor that uses nnsight: one worker for many looks, whatever happens to one of them."""

import gc
import threading
import weakref
from contextvars import ContextVar, copy_context
from functools import partial

import pytest
import torch
from greenlet import greenlet
from torch import nn

from guardrail.engines.transformers.nnsight import Traced


class Half(nn.Module):
    def forward(self, x):
        return x / 2


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Half(), Half()

    def forward(self, x):
        return self.second(self.first(x))


@pytest.fixture
def chain():
    return Chain()


@pytest.fixture
def traced(chain):
    return Traced({"first": chain.first, "second": chain.second})


BOTH = ("first", "second")


def look(traced, chain, value, names=BOTH):
    """What a look sees in a pass over one number."""
    seen = []
    result = traced.observe(
        names, lambda: chain(torch.tensor([value])), lambda name, h: seen.append(float(h))
    )
    assert float(result) == value / 4
    return seen


def living_greenlets():
    gc.collect()
    return {id(thing) for thing in gc.get_objects() if type(thing) is greenlet and thing}


def test_looks_of_one_thread_share_a_worker_and_see_their_own_pass(traced, chain):
    look(traced, chain, 1.0)
    before = living_greenlets()
    assert [look(traced, chain, float(i), names) for i in range(8) for names in (BOTH, ("second",))] == [
        [i / 2, i / 4] if both else [i / 4] for i in range(8) for both in (True, False)
    ]
    assert living_greenlets() == before


def test_executors_that_are_dropped_leave_no_worker_behind(chain):
    def once():
        look(Traced({"first": chain.first, "second": chain.second}), chain, 1.0)

    once()
    before = living_greenlets()
    for _ in range(5):
        once()
    assert len(living_greenlets()) <= len(before)


def test_looks_of_other_threads_have_a_worker_of_their_own(traced, chain):
    found = [look(traced, chain, 4.0)]
    for value in (8.0, 16.0):
        elsewhere(lambda value=value: found.append(look(traced, chain, value)))
    found.append(look(traced, chain, 32.0))
    assert found == [[2.0, 1.0], [4.0, 2.0], [8.0, 4.0], [16.0, 8.0]]


def test_a_look_that_has_seen_enough_ends_the_pass(traced, chain):
    ran = []
    chain.second.register_forward_pre_hook(lambda *_: ran.append(True))
    assert traced.observe(BOTH, lambda: chain(torch.ones(1)), lambda name, h: True) is None
    assert not ran
    assert look(traced, chain, 4.0) == [2.0, 1.0]


def test_visitors_see_the_context_of_their_own_look(traced, chain):
    request, seen = ContextVar("request", default="nobody"), []

    def visit(name, hidden):
        seen.append(request.get())
        request.set("left behind")

    def run():
        return chain(torch.ones(1))

    for name in ("first", "second"):
        copy_context().run(lambda name=name: (request.set(name), traced.observe(BOTH[:1], run, visit)))
    traced.observe(BOTH[:1], run, visit)
    assert seen == ["first", "second", "nobody"]


def test_nothing_of_a_request_is_kept_in_its_context(traced, chain):
    request, kept = ContextVar("request"), []

    def ask():
        asked = Chain()
        kept.append(weakref.ref(asked))
        request.set(asked)
        look(traced, chain, 1.0)

    copy_context().run(ask)
    gc.collect()
    assert kept[0]() is None


def failing(*_):
    raise RuntimeError("no memory")


def test_a_visitor_that_fails_does_not_spoil_the_next_look(traced, chain):
    with pytest.raises(RuntimeError, match="no memory"):
        traced.observe(BOTH, lambda: chain(torch.ones(1)), failing)
    assert look(traced, chain, 4.0) == [2.0, 1.0]


def test_a_pass_that_fails_half_way_does_not_spoil_the_next_look(traced, chain):
    handle = chain.second.register_forward_pre_hook(failing)
    with pytest.raises(RuntimeError, match="no memory"):
        traced.observe(BOTH, lambda: chain(torch.ones(1)), lambda name, h: False)
    handle.remove()
    assert look(traced, chain, 4.0) == [2.0, 1.0]


def test_a_module_that_the_pass_never_reaches_is_an_error(traced, chain):
    # nnsight mounts `.save` on every object if it is imported before the guard imports it
    from nnsight.intervention.interleaver import OutOfOrderError

    with pytest.raises(OutOfOrderError, match="second"):
        traced.observe(BOTH, lambda: chain.first(torch.ones(1)), lambda name, h: False)
    assert look(traced, chain, 4.0) == [2.0, 1.0]


def test_nothing_of_what_was_seen_is_kept(traced, chain):
    seen = []
    traced.observe(BOTH, lambda: chain(torch.ones(1)), lambda name, h: seen.append(weakref.ref(h)))
    assert [kept() for kept in seen] == [None, None]


def here(call):
    call()


def elsewhere(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


@pytest.mark.parametrize("run", [here, elsewhere])
def test_a_model_is_freed_with_its_executor(run):
    chain = Chain()
    executor, gone = Traced({"first": chain.first, "second": chain.second}), weakref.ref(chain.first)
    run(partial(look, executor, chain, 1.0))
    del executor, chain
    gc.collect()
    assert gone() is None


def test_every_pass_is_steered_and_looks_work_afterwards(traced, chain):
    seen = []

    def run():
        return [float(chain(torch.tensor([float(i)]))) for i in range(3)]

    def double(name, hidden):
        seen.append(float(hidden))
        hidden *= 2

    look(traced, chain, 1.0)
    assert traced.steer(("first",), run, double) == [0.0, 0.5, 1.0]
    assert seen == [0.0, 0.5, 1.0]
    assert look(traced, chain, 4.0) == [2.0, 1.0]
