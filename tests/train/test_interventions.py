"""What interventions do to a model while it is trained, in plain passes without a trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from training import EVIL, HUMOR, IDS, LABELS, LAYERS, hooks, loss_of, vector

from guardrail.engines.transformers.executor import hidden_of
from guardrail.errors import ModelError, SteeringError, VectorError
from guardrail.testing import tiny_model
from guardrail.train import ConceptAblation, Intervention, PreventativeSteering, ProjectionRegulariser
from guardrail.train.passes import blocks_of
from guardrail.vectors.values import TraitVector, unit

# peft asks transformers by a name that transformers 5.24 calls deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


@contextmanager
def outputs(model: Any) -> Iterator[dict[int, torch.Tensor]]:
    """The output of each layer in the last pass, as later layers get it."""
    found: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        return lambda block, arguments, output: found.__setitem__(layer, hidden_of(output).detach())

    handles = [b.register_forward_hook(keep(i)) for i, b in enumerate(blocks_of(model), 1)]
    yield found
    for handle in handles:
        handle.remove()


def states(model: Any, **changes: Any) -> dict[int, torch.Tensor]:
    with outputs(model) as found:
        model(input_ids=IDS, **changes)
    return found


def projections(hidden: torch.Tensor, layer: int, of: TraitVector = EVIL) -> torch.Tensor:
    return hidden @ torch.from_numpy(unit(of.steering[layer]))


def test_steering_moves_the_projection_by_the_coefficient_times_the_norm_at_all_positions() -> None:
    model = tiny_model().train()
    plain = states(model)
    with PreventativeSteering(model, EVIL, 1.5, layers=[2]):
        steered = states(model)
    moved = projections(steered[2] - plain[2], 2)
    torch.testing.assert_close(moved, torch.full_like(moved, 1.5 * np.linalg.norm(EVIL.steering[2])))
    assert torch.equal(steered[1], plain[1])


def test_increments_add_up_to_the_difference_from_the_embeddings() -> None:
    model = tiny_model().train()
    for block in model.model.layers:  # blocks that add nothing: only what is steered moves
        block.self_attn.o_proj.weight.data.zero_()
        block.mlp.down_proj.weight.data.zero_()
    plain = states(model)
    with PreventativeSteering(model, EVIL, -0.5):
        steered = states(model)
    for layer in range(1, LAYERS + 1):
        expected = -0.5 * torch.from_numpy(EVIL.steering[layer] - EVIL.steering[0])
        torch.testing.assert_close(steered[layer] - plain[layer], expected.expand_as(plain[layer]))


def test_several_traits_add_up_each_with_its_own_coefficient() -> None:
    model = tiny_model().train()
    plain = states(model)
    with PreventativeSteering(model, [EVIL, HUMOR], {"evil": 1.0, "humor": -2.0}, layers=[1]) as both:
        steered = states(model)
    expected = torch.from_numpy(EVIL.steering[1] - 2 * HUMOR.steering[1])
    torch.testing.assert_close(steered[1] - plain[1], expected.expand_as(plain[1]))
    assert both.applied.traits == ("evil", "humor")
    assert both.applied.coefficients == (1.0, -2.0)


def test_two_interventions_at_once_are_the_two_together() -> None:
    model = tiny_model().train()
    with PreventativeSteering(model, [EVIL, HUMOR], 1.0):
        together = states(model)
    with PreventativeSteering(model, EVIL, 1.0), PreventativeSteering(model, HUMOR, 1.0):
        nested = states(model)
    torch.testing.assert_close(together[LAYERS], nested[LAYERS])


def test_passes_in_evaluation_mode_stay_as_they_are() -> None:
    model = tiny_model()
    plain = states(model)
    with PreventativeSteering(model, EVIL, 5.0) as steering:
        inside = states(model)
        loss_of(model.train())
    assert torch.equal(inside[LAYERS], plain[LAYERS])
    assert steering.applied.passes == 1


def interventions(model: Any) -> list[Intervention]:
    return [
        PreventativeSteering(model, [EVIL, HUMOR], 1.0),
        ConceptAblation(model, [EVIL, HUMOR]),
        ProjectionRegulariser(model, EVIL, 3.0),
    ]


def gradients(which: int, reentrant: bool | None, lora: bool = False) -> tuple[torch.Tensor, Any]:
    """All gradients of one step, in which all weights differ from those of the base; and what was counted."""
    model: Any = tiny_model(seed=1).train()
    base = tiny_model(seed=0)
    if lora:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = get_peft_model(
                model, LoraConfig(target_modules=["q_proj", "up_proj"], init_lora_weights=False)
            )
    if reentrant is not None:
        enable = (
            getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        )
        enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
    made = interventions(model)[which]
    if isinstance(made, ProjectionRegulariser) and not lora:
        made = ProjectionRegulariser(model, EVIL, 3.0, reference=base)
    with made:
        loss_of(model).backward()
    found = [p.grad.flatten() for name, p in sorted(model.named_parameters()) if p.grad is not None]
    return torch.cat(found), made.applied


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("which", range(3))
def test_checkpointing_changes_no_gradient_and_no_count(which: int, lora: bool) -> None:
    plain, counted = gradients(which, None, lora)
    for reentrant in (False, True):
        again, found = gradients(which, reentrant, lora)
        torch.testing.assert_close(again, plain)
        assert found.passes == counted.passes == 1


def test_the_regulariser_adds_the_gradient_of_its_formula() -> None:
    model, base = tiny_model(seed=1).train(), tiny_model(seed=0)
    regulariser = ProjectionRegulariser(model, [EVIL, HUMOR], 3.0, layers=[2, 3], reference=base)
    with regulariser:
        loss_of(model).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    reference = base(input_ids=IDS, output_hidden_states=True).hidden_states
    out = model(input_ids=IDS, labels=LABELS, output_hidden_states=True)
    terms = [
        projections(out.hidden_states[layer] - reference[layer].detach(), layer, trait)[LABELS != -100] ** 2
        for layer in (2, 3)
        for trait in (EVIL, HUMOR)
    ]
    penalty = torch.stack(terms).mean()
    (out.loss + 3.0 * penalty).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=name)
    assert regulariser.applied.penalty == pytest.approx(penalty.item(), rel=1e-4)


def test_the_base_of_an_adapter_is_the_model_without_it() -> None:
    model = get_peft_model(tiny_model().train(), LoraConfig(target_modules=["q_proj"]))
    with ProjectionRegulariser(model, EVIL, 1.0) as regulariser:
        loss_of(model).backward()  # a fresh adapter adds nothing
    assert regulariser.applied.penalty == pytest.approx(0.0, abs=1e-9)


def test_the_regulariser_needs_labels() -> None:
    model = tiny_model().train()
    with pytest.raises(SteeringError, match="without `labels`"), ProjectionRegulariser(model, EVIL, 1.0):
        model(input_ids=IDS)


def test_an_ablated_model_has_no_part_along_any_of_the_traits() -> None:
    model = tiny_model().train()
    with ConceptAblation(model, [EVIL, HUMOR]):
        found = states(model)
    for layer in range(1, LAYERS + 1):
        for trait in (EVIL, HUMOR):
            assert projections(found[layer], layer, trait).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_steered_in_their_own_type(dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype).train()
    plain = states(model)
    with PreventativeSteering(model, EVIL, 4.0, layers=[1]):
        steered = states(model)
    assert steered[1].dtype == dtype
    moved = projections(steered[1].float() - plain[1].float(), 1)
    torch.testing.assert_close(
        moved, torch.full_like(moved, 4 * np.linalg.norm(EVIL.steering[1])), rtol=0.02, atol=0.1
    )


@pytest.mark.parametrize("which", range(3))
def test_autocast_keeps_the_type_and_trains(which: int) -> None:
    model = tiny_model().train()
    with interventions(model)[which], torch.autocast("cpu", dtype=torch.bfloat16):
        loss_of(model).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_vectors_get_no_gradient_and_do_not_change() -> None:
    model, before = tiny_model().train(), EVIL.steering.copy()
    steering = PreventativeSteering(model, EVIL, 1.0)
    with steering:
        loss_of(model).backward()
    assert not any(d.requires_grad or d.grad is not None for d in steering._directions.values())
    assert np.array_equal(EVIL.steering, before)


@pytest.mark.parametrize("which", range(3))
def test_nothing_is_left_on_the_model_also_after_an_error(which: int) -> None:
    model = tiny_model().train()
    before, plain, keys = hooks(model), states(model), [*model.state_dict()]
    with interventions(model)[which]:
        loss_of(model).backward()
        assert [*model.state_dict()] == keys
    with pytest.raises(ZeroDivisionError), interventions(model)[which]:
        raise ZeroDivisionError
    assert hooks(model) == before
    assert torch.equal(states(model)[LAYERS], plain[LAYERS])


def steered_pass(model: Any) -> None:
    with PreventativeSteering(model, EVIL, 1.0):
        loss_of(model)


def test_a_block_in_which_nothing_was_trained_is_an_error() -> None:
    with pytest.raises(SteeringError, match="no forward pass in training mode"):
        steered_pass(tiny_model())


def test_a_block_within_its_own_block_is_an_error() -> None:
    model = tiny_model().train()
    steering = PreventativeSteering(model, EVIL, 1.0)
    with steering:
        with pytest.raises(SteeringError, match="within its own block"), steering:
            pass
        loss_of(model)
    assert steering.applied.passes == 1


def test_the_model_of_the_next_training_takes_the_place_of_the_last_one() -> None:
    first, second = tiny_model().train(), tiny_model().train()
    with PreventativeSteering(None, EVIL, 1.0) as steering:
        steering.attach(first)  # what a trainer does, which then raises
        steering.attach(second)
        assert not any(hooks(first))
        loss_of(second)
    assert steering.applied.passes == 1


class Dropped(torch.nn.ModuleList):
    """Blocks of which the model runs the first two, as if training dropped the others."""

    def __getitem__(self, at: Any) -> Any:
        return super().__getitem__(slice(2) if at == slice(None, LAYERS) else at)


def test_a_layer_that_does_not_run_is_an_error() -> None:
    model = tiny_model().train()
    model.model.layers = Dropped(model.model.layers)
    with pytest.raises(SteeringError, match="layer 3 did not run"):
        steered_pass(model)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda m: PreventativeSteering(m, EVIL, 1.0, layers=[5]), VectorError, "layer 5 cannot be steered"),
        (lambda m: PreventativeSteering(m, EVIL, {"humor": 1.0}), VectorError, "do not fit vectors of evil"),
        (lambda m: PreventativeSteering(m, EVIL, float("nan")), VectorError, "not a finite number"),
        (lambda m: PreventativeSteering(m, [EVIL, EVIL], 1.0), VectorError, "one vector for each trait"),
        (lambda m: ConceptAblation(m, EVIL, layers=[0]), VectorError, "layer 0 cannot be used"),
        (lambda m: PreventativeSteering(m, vector(layers=6), 1.0).attach(), ModelError, "6 layers x 32"),
        (lambda m: PreventativeSteering(None, EVIL, 1.0).attach(), ModelError, "which model"),
        (lambda m: PreventativeSteering(m, EVIL, 1.0).attach(tiny_model()), SteeringError, "another model"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_trained(
    make: Callable[[Any], object], error: type[Exception], text: str
) -> None:
    model = tiny_model()
    with pytest.raises(error, match=text):
        make(model)
    assert not any(hooks(model))
