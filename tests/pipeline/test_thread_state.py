"""What torch keeps for each thread reaches the worker, and text is generated in inference mode."""

import pytest
import torch
from tiny import FIRES, NEVER, batch, guard, policy
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from guardrail.testing import tiny_model

BARE = tiny_model()
GREEDY = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}


class Counting(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def seen(made, ask):
    """What a forward pass of `ask` sees of its thread."""
    found = []

    def look(module, inputs):
        found.append(
            {
                "grad": torch.is_grad_enabled(),
                "inference": torch.is_inference_mode_enabled(),
                "autocast": torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
                "device": torch.get_default_device().type,
                "threads": torch.get_num_threads(),
            }
        )

    handle = made.engine.blocks[0].register_forward_pre_hook(look)
    try:
        ask()
    finally:
        handle.remove()
    return found[-1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with guard(tmp_path_factory.mktemp("guard"), policy(threshold=NEVER)) as found:
        yield found


@pytest.mark.parametrize(
    ("context", "name", "value"),
    [
        (torch.inference_mode, "inference", True),
        (lambda: torch.autocast("cpu", torch.bfloat16), "autocast", torch.bfloat16),
        (lambda: torch.autocast("cpu", torch.float16), "autocast", torch.float16),
        (lambda: torch.device("meta"), "device", "meta"),
    ],
)
def test_generate_runs_in_the_callers_state(made, context, name, value):
    asked = {**batch(2), **GREEDY}
    outside = seen(made, lambda: made.generate(**asked))
    with context():
        inside = seen(made, lambda: made.generate(**asked))
    assert (inside[name], outside[name] == value) == (value, False)
    assert seen(made, lambda: made.generate(**asked)) == outside


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_generate_returns_what_the_model_would_return_in_that_state(made, context):
    with context():
        mine = made.generate(**batch(2), **GREEDY)
        theirs = BARE.generate(**batch(2), **GREEDY)
    assert torch.equal(mine, theirs)
    assert mine.is_inference() == theirs.is_inference()


def test_autocast_gives_the_reply_of_the_model_under_autocast(made):
    asked = {**batch(2), **GREEDY, "output_logits": True, "return_dict_in_generate": True}
    with torch.autocast("cpu", torch.bfloat16):
        mine, theirs = made.generate(**asked), BARE.generate(**asked)
    assert all(torch.equal(a, b) for a, b in zip(mine.logits, theirs.logits, strict=True))
    assert not torch.equal(mine.logits[0], BARE.generate(**asked).logits[0])


def test_modes_see_the_models_operations_and_end_with_the_call(made):
    with Counting() as counting:
        made.check("Hello")
    calls = counting.calls
    made.check("Hello")
    with FlopCounterMode(display=False) as flops:
        made.check("Hello")
    assert calls == counting.calls > 10
    assert flops.get_total_flops() > 0


def test_a_default_device_breaks_nothing_and_is_the_callers_alone(made):
    plain = made.chat("Hello", temperature=0, max_new_tokens=4)
    with torch.device("meta"):
        assert made.chat("Hello", temperature=0, max_new_tokens=4).text == plain.text
        assert made.chat("Hello", temperature=1.0, seed=1, max_new_tokens=4).text
    assert torch.get_default_device().type == "cpu"


def test_rows_leave_and_replies_are_stopped_under_a_default_device(tmp_path):
    reply = policy("block", {"raw": FIRES}, stage="response", message="No.") | {"id": "reply"}
    asked = {**batch(4), **GREEDY}
    with guard(tmp_path, policy(threshold={"raw": 0.0}), reply) as following:
        plain = following.generate(**asked)
        assert {decision.action for decision in following.last_decisions} == {"allow", "block"}
        with torch.device("meta"):
            assert torch.equal(following.generate(**asked).cpu(), plain)


@pytest.mark.parametrize(
    "ask",
    [
        lambda made: made.chat("Hello", max_new_tokens=2),
        lambda made: list(made.stream("Hello", max_new_tokens=2)),
        lambda made: made.check("Hello"),
    ],
)
def test_text_is_made_in_inference_mode(made, ask):
    assert seen(made, lambda: ask(made))["inference"]


def test_models_from_elsewhere_are_spared_inference_mode(tmp_path):
    from transformers import LlamaForCausalLM

    class Own(LlamaForCausalLM):
        """Code that did not come with transformers."""

    model = tiny_model()
    model.__class__ = Own
    with guard(tmp_path, policy(threshold=NEVER), model=model) as made:
        found = seen(made, lambda: made.chat("Hello", max_new_tokens=2))
    assert (found["inference"], found["grad"]) == (False, False)


def test_the_number_of_threads_is_the_callers(made):
    made.check("Hello")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert seen(made, lambda: made.check("Hello"))["threads"] == before + 1
    finally:
        torch.set_num_threads(before)
    assert seen(made, lambda: made.check("Hello"))["threads"] == before


def test_a_model_that_was_asked_in_inference_mode_can_be_trained_afterwards(made):
    made.chat("Hello", max_new_tokens=2)
    made.model(**batch(2)).logits.float().mean().backward()
    assert any(parameter.grad is not None for parameter in made.model.parameters())
    made.model.zero_grad()
