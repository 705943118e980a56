"""Steering: what it does to the projection, which positions and rows it touches, and that it is counted."""

import copy

import pytest
import torch
from pairs import EXECUTORS, in_pairs
from tiny import WIDTH, Fixed, batch, engine, generate, plan, steering

from guardrail.engines.transformers.blocks import decoder_blocks
from guardrail.testing import ARCHITECTURES

pytestmark = pytest.mark.usefixtures("no_grad", "executors")

CHOICES = {"at the layer read": (3,), "above it": (4,), "below it": (1,), "all": (1, 2, 3, 4)}
EXACT = {"min_new_tokens": 6, "do_sample": False}


def steered_by_hooks(bare, made_steering, rows):
    """The reference: plain hooks on a copy, on the last position of every pass."""
    model = copy.deepcopy(bare)

    def hook(index):
        def change(module, args, output):
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            direction = torch.from_numpy(made_steering.directions[index])
            for row in rows:
                hidden[row, -1] = _changed(hidden[row, -1], direction, made_steering, index)
            return hidden

        return change

    for index, layer in enumerate(made_steering.layers):
        decoder_blocks(model)[layer - 1].register_forward_hook(hook(index))
    return model


def _changed(state, direction, spec, index):
    if spec.operator == "add":
        return state + direction
    projection = state @ direction
    beyond = projection if spec.operator == "ablate" else (projection - spec.limits[index]).clamp(min=0)
    return state - beyond * direction


@in_pairs(executors=EXECUTORS, operator=["add", "ablate", "cap"], layers=CHOICES)
def test_steered_rows_equal_hook_steering_from_the_first_token(operator, layers):
    spec = steering(operator, layers, limit=-1.0)
    active, inputs = plan((3,), spec), batch(4)
    with engine() as (made, bare):
        evaluator = Fixed(("allow", "steer"), (spec,))
        result = generate(made, active, evaluator, **inputs, **EXACT)
        expected = steered_by_hooks(bare, spec, (1, 3)).generate(
            **inputs, **EXACT, max_new_tokens=6, pad_token_id=0
        )
        plain = bare.generate(**inputs, **EXACT, max_new_tokens=6, pad_token_id=0)
    assert torch.equal(result.output, expected)
    assert torch.equal(result.output[[0, 2]], plain[[0, 2]])
    assert result.passes == {1: 6, 3: 6}
    if operator == "add":
        width = inputs["input_ids"].shape[1]
        assert (result.output[[1, 3], width] != plain[[1, 3], width]).any(), "the first token was not steered"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_steered_below_the_layer_read(architecture):
    """The last prompt position is computed again, also in windows that are full."""
    spec = steering("add", (1, 4))
    active, inputs = plan((3,), spec), batch(4)
    with engine(architecture) as (made, bare):
        result = generate(made, active, Fixed(("allow", "steer"), (spec,)), **inputs, **EXACT)
        expected = steered_by_hooks(bare, spec, (1, 3)).generate(
            **inputs, **EXACT, max_new_tokens=6, pad_token_id=0
        )
    assert torch.equal(result.output, expected)


@pytest.mark.parametrize("architecture", ["mistral", "gemma3_text"])
def test_a_plan_that_might_steer_changes_nothing_for_prompts_that_pass(architecture):
    active = plan((3,), steering("add", (1,)))
    inputs = batch(4)
    with engine(architecture) as (made, bare):
        output = generate(made, active, Fixed(), **inputs, do_sample=False, max_new_tokens=24).output
        expected = bare.generate(**inputs, do_sample=False, max_new_tokens=24, pad_token_id=0)
    assert torch.equal(output, expected)


@pytest.mark.parametrize(
    "kwargs", [{"num_beams": 3, "do_sample": False}, {"use_cache": False, "do_sample": False}]
)
def test_beams_and_generation_without_cache_are_steered(kwargs):
    spec = steering("add", (4,))
    inputs = batch(2)
    with engine() as (made, bare):
        result = generate(
            made, plan((3,), spec), Fixed(("steer",), (spec,)), **inputs, **kwargs, min_new_tokens=6
        )
        rows = range(2 * kwargs.get("num_beams", 1))
        reference = _steer_reply_only(bare, spec, rows, inputs["input_ids"].shape[1])
        expected = reference.generate(**inputs, **kwargs, min_new_tokens=6, max_new_tokens=6, pad_token_id=0)
    assert torch.equal(result.output, expected)
    assert result.passes == {0: 6, 1: 6}


def _steer_reply_only(bare, spec, rows, prompt):
    model = copy.deepcopy(bare)

    def change(module, args, output):
        hidden = output.clone()
        start = prompt - 1 if hidden.shape[1] >= prompt else 0
        hidden[list(rows), start:] += torch.from_numpy(spec.directions[0])
        return hidden

    decoder_blocks(model)[spec.layers[0] - 1].register_forward_hook(change)
    return model


def states_under(made, spec, read, inputs):
    """What a later probe at `read` sees after steering: the block's output as the next block gets it."""
    seen = []
    block = made.blocks[read] if read < len(made.blocks) else None
    assert block is not None
    handle = block.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(args[0].clone()), with_kwargs=True
    )
    active = plan((read,), spec)
    generate(made, active, Fixed(("steer",) if spec.layers else ("allow",), (spec,)), **inputs, **EXACT)
    handle.remove()
    return seen


def test_adding_moves_the_projection_by_exactly_its_length():
    spec = steering("add", (2,))
    direction = torch.from_numpy(spec.directions[0])
    unit = direction / direction.norm()
    inputs = batch(2)
    with engine() as (made, bare):
        steered = states_under(made, spec, 2, inputs)
        plain = bare(**inputs, output_hidden_states=True, position_ids=_positions(inputs)).hidden_states[2]
    moved = (steered[0][:, -1] - plain[:, -1]) @ unit
    assert torch.allclose(moved, direction.norm().expand(2), rtol=1e-4)
    assert torch.allclose(steered[0][:, :-1], plain[:, :-1], atol=1e-5), (
        "earlier prompt positions were changed"
    )


def _positions(inputs):
    return (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)


def test_ablating_leaves_no_projection():
    spec = steering("ablate", (2,))
    with engine() as (made, _):
        steered = states_under(made, spec, 2, batch(2))
    for state in steered:
        assert (state[:, -1] @ torch.from_numpy(spec.directions[0])).abs().max() < 1e-4


@pytest.mark.parametrize("limit", [-1.0, 0.5])
def test_capping_limits_what_is_above_and_leaves_the_rest_bit_identical(limit):
    spec = steering("cap", (2,), limit=limit)
    inputs, direction = batch(8), torch.from_numpy(spec.directions[0])
    with engine() as (made, bare):
        steered = states_under(made, spec, 2, inputs)[0][:, -1]
        allowed = states_under(made, steering("cap", (2,), limit=1e9), 2, inputs)[0][:, -1]
        plain = bare(**inputs, output_hidden_states=True, position_ids=_positions(inputs)).hidden_states[2][
            :, -1
        ]
    above = plain @ direction > limit
    assert above.any()
    assert (~above).any() or limit < 0
    assert torch.allclose((steered @ direction)[above], torch.tensor(limit), atol=1e-4)
    assert torch.equal(steered[~above], allowed[~above])


def test_a_floor_lifts_what_is_below():
    from dataclasses import replace

    cap = steering("cap", (2,), limit=0.5)
    spec = replace(cap, floor=True, directions=cap.directions)
    with engine() as (made, _):
        steered = states_under(made, spec, 2, batch(8))[0][:, -1]
    assert (steered @ torch.from_numpy(spec.directions[0])).min() > 0.5 - 1e-4


def test_steering_does_not_leak_into_the_next_request():
    spec = steering("add", (1, 2, 3, 4))
    active, inputs = plan((3,), spec), batch(3)
    with engine() as (made, bare):
        generate(made, active, Fixed(("steer",), (spec,)), **inputs)
        output = generate(made, active, Fixed(), **inputs, do_sample=False).output
        expected = bare.generate(**inputs, do_sample=False, max_new_tokens=6, pad_token_id=0)
        assert torch.equal(output, expected)
        assert torch.equal(made.model(**inputs).logits, bare(**inputs).logits)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_is_steered_from_the_last_prompt_token_on(side):
    spec = steering("add", (3,))
    inputs = batch(4, side)
    positions = inputs["attention_mask"].cumsum(1).argmax(1)
    seen = []
    with engine() as (made, bare):
        made.blocks[3].register_forward_pre_hook(
            lambda m, args, kwargs: seen.append(args[0].clone()), with_kwargs=True
        )
        generate(made, plan((3,), spec), Fixed(("steer",), (spec,)), **inputs, max_new_tokens=1)
        plain = bare(**inputs, output_hidden_states=True, position_ids=_positions(inputs)).hidden_states[3]
    for row, last in enumerate(positions.tolist()):
        changed = (seen[0][row] - plain[row]).abs().sum(-1) > 1e-3
        real = inputs["attention_mask"][row].bool()
        assert changed[last]
        assert not (changed & real)[:last].any()


def test_both_of_two_steering_policies_act():
    from dataclasses import replace

    first, second = steering("add", (3,), seed=1), steering("add", (3,), seed=2).renamed("other")
    both = steering("add", (3,))
    total = replace(both, directions=(first.directions[0] + second.directions[0],))
    inputs = batch(2)
    with engine() as (made, bare):
        active = plan((3,), first)
        result = generate(made, active, Fixed(("steer",), (first, second)), **inputs, **EXACT)
        expected = steered_by_hooks(bare, total, (0, 1)).generate(
            **inputs, **EXACT, max_new_tokens=6, pad_token_id=0
        )
    assert torch.equal(result.output, expected)
    assert result.passes == {0: 6, 1: 6}
    assert first.directions[0].shape == (WIDTH,)
