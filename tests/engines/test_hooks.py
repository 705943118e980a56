"""The executor that uses forward hooks. The `executors` fixture runs the engine's tests with it as well."""

import pytest
import torch
from torch import nn

from guardrail.engines.transformers.hooks import Hooked


def pair():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))


def hooks_of(model):
    return [len(module._forward_hooks) for module in model]


def test_it_sees_what_forward_returned_before_the_users_own_hooks():
    model, seen, x = pair(), [], torch.ones(1, 3)
    model[0].register_forward_hook(lambda module, arguments, output: output + 1)
    hooked = Hooked({"first": model[0]})
    changed = hooked.observe(["first"], lambda: model(x), lambda name, h: bool(seen.append(h.clone())))
    assert torch.equal(seen[0], model[0].forward(x))
    assert torch.equal(changed, model(x))


def test_a_visitor_that_has_seen_enough_ends_the_pass():
    model, seen = pair(), []
    hooked = Hooked({"first": model[0], "second": model[1]})
    done = hooked.observe(
        ["first", "second"], lambda: model(torch.ones(1, 3)), lambda n, h: not seen.append(n)
    )
    assert (done, seen) == (None, ["first"])


def test_what_is_changed_in_place_goes_on():
    model, x = pair(), torch.ones(1, 3)
    steered = Hooked({"first": model[0]}).steer(
        ["first"], lambda: model(x), lambda name, h: bool(h.zero_().sum())
    )
    assert torch.equal(steered, model[1](torch.zeros(1, 3)))


@pytest.mark.parametrize("method", ["observe", "steer"])
def test_nothing_is_left_when_the_visitor_breaks(method):
    model = pair()

    def broken(name, hidden):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        getattr(Hooked({"first": model[0]}), method)(["first"], lambda: model(torch.ones(1, 3)), broken)
    assert hooks_of(model) == [0, 0]
