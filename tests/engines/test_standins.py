"""What a guard puts on a model is taken off without a trace of it, and without losing anything of others."""

import threading
from contextlib import ExitStack

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from tiny import TOKENIZER, Fixed, batch, generate, plan
from torch import nn

from guardrail.engines.transformers.engine import TransformersEngine
from guardrail.engines.transformers.hooks import Hooked
from guardrail.engines.transformers.nnsight import Traced
from guardrail.engines.transformers.stance import eagerly
from guardrail.testing import tiny_model

GREEDY = {"do_sample": False}


class Noted(ModelHook):
    """Counts what passes through its module."""

    def __init__(self):
        self.passes = 0

    def post_forward(self, module, output):
        self.passes += 1
        return output


def engine(model):
    return TransformersEngine(model, TOKENIZER)


def reply(made):
    return generate(made, plan((2, 3)), Fixed(), **batch(2), **GREEDY).output


PARTS = {"model": lambda m: m, "decoder": lambda m: m.model, "block": lambda m: m.model.layers[1]}


@pytest.mark.parametrize("part", PARTS)
def test_hooks_that_others_add_while_the_model_is_guarded_stay(part):
    model, hook = tiny_model(), Noted()
    plain = model(**batch(2)).logits
    made = engine(model)
    expected = reply(made)
    add_hook_to_module(PARTS[part](model), hook)
    assert torch.equal(reply(made), expected)
    made.close()
    seen = hook.passes
    assert seen > 0
    assert torch.equal(model(**batch(2)).logits, plain)
    assert hook.passes == seen + 1
    remove_hook_from_module(PARTS[part](model))
    assert torch.equal(model(**batch(2)).logits, plain)
    assert hook.passes == seen + 1
    again = engine(model)
    assert torch.equal(reply(again), expected)
    again.close()


@pytest.mark.parametrize("part", PARTS)
def test_hooks_that_others_remove_while_the_model_is_guarded_do_not_come_back(part):
    model, hook = tiny_model(), Noted()
    add_hook_to_module(PARTS[part](model), hook)
    made = engine(model)
    expected = reply(made)
    remove_hook_from_module(PARTS[part](model))
    seen = hook.passes
    assert torch.equal(reply(made), expected)
    made.close()
    model(**batch(2))
    assert hook.passes == seen


@pytest.mark.parametrize("part", PARTS)
def test_a_forward_that_others_set_while_the_model_is_guarded_stays(part):
    model, calls = tiny_model(), []
    made, module = engine(model), PARTS[part](model)
    inner = module.forward

    def forward(*args, **kwargs):
        calls.append(True)
        return inner(*args, **kwargs)

    module.forward = forward
    expected = reply(made)
    assert calls
    made.close()
    assert module.forward is forward
    calls.clear()
    model(**batch(2))
    assert len(calls) == 1
    again = engine(model)
    assert torch.equal(reply(again), expected)
    again.close()
    assert module.forward is forward


@pytest.mark.parametrize("executor", [Traced, Hooked])
def test_a_forward_that_is_set_in_the_middle_of_a_look_stays(executor):
    module, new = nn.Linear(2, 2), []
    made = executor({"it": module})

    def visit(name, hidden):
        own = module.forward
        module.forward = lambda x: own(x) + 1
        new.append(module.forward)
        return False

    plain = module(torch.ones(1, 2))
    made.observe(["it"], lambda: module(torch.ones(1, 2)), visit)
    assert module.forward is new[0]
    assert torch.equal(module(torch.ones(1, 2)), plain + 1)
    made.observe(["it"], lambda: module(torch.ones(1, 2)), lambda name, hidden: False)
    assert torch.equal(module(torch.ones(1, 2)), plain + 1)


def test_looks_of_several_models_at_once_end_with_the_stance_that_was_there():
    compiled = torch.compile(lambda x: x + 1, backend=backend)
    entered, leave = threading.Event(), threading.Event()

    def other():
        with eagerly():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with eagerly():
        thread.start()
        entered.wait()
    assert not compiles(compiled)
    leave.set()
    thread.join()
    assert compiles(compiled)


def test_a_model_that_is_loaded_while_another_is_looked_at_ends_with_the_stance_that_was_there():
    compiled = torch.compile(lambda x: x + 2, backend=backend)
    model = tiny_model()
    with ExitStack() as look:
        model.model.layers[0].register_forward_hook(lambda *_: look.enter_context(eagerly()))
        engine(model).close()
        assert not compiles(compiled)
    assert compiles(compiled)


graphs = []


def backend(graph, examples):
    graphs.append(graph)
    return graph.forward


def compiles(compiled):
    before = len(graphs)
    compiled(torch.ones(2))
    return len(graphs) > before
