"""Reading and patching: the layer convention, positions, and what any patching must satisfy."""

import pytest
import torch
from tiny import TOKENIZER, Fixed, batch, engine, generate, plan

from guardrail.engines.transformers.activations import COMPONENTS, Edit, Site, Start
from guardrail.engines.transformers.blocks import output_projection, submodule
from guardrail.errors import ModelError
from guardrail.testing import ARCHITECTURES

pytestmark = pytest.mark.usefixtures("no_grad")


def positions(inputs):
    return (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layer_l_is_hidden_states_l_and_the_last_layer_is_before_the_final_norm(architecture):
    inputs = batch(4)
    with engine(architecture) as (made, bare):
        sites = [Site(layer) for layer in range(5)]
        read = made.activations.read(inputs["input_ids"], inputs["attention_mask"], sites, "all")
        hidden = bare(**inputs, position_ids=positions(inputs), output_hidden_states=True).hidden_states
        norm = next(
            m
            for m in (getattr(made.inner.base_model, n, None) for n in ("norm", "ln_f", "final_layer_norm"))
            if m is not None
        )
    real = inputs["attention_mask"].bool()
    for layer in range(4):
        assert torch.allclose(read[Site(layer)][real], hidden[layer][real], atol=1e-5), layer
    assert not torch.allclose(read[Site(4)][real], hidden[4][real], atol=1e-3)
    assert torch.allclose(norm(read[Site(4)])[real], hidden[4][real], atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_last_is_each_rows_last_token_on_either_side_of_padding(side):
    inputs = batch(4, side)
    last = (inputs["attention_mask"] * torch.arange(inputs["input_ids"].shape[1])).argmax(1)
    with engine() as (made, _):
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        everything = made.activations.read(ids, mask, [Site(2)], "all")[Site(2)]
        found = made.activations.read(ids, mask, [Site(2)], "last")[Site(2)]
        chosen = made.activations.read(ids, mask, [Site(2)], last)[Site(2)]
    assert torch.equal(found, everything[torch.arange(4), last])
    assert torch.equal(chosen, found)


def test_states_behind_a_kept_prefix_are_those_of_a_whole_pass():
    inputs = batch(4, "right")
    rows, mask = inputs["input_ids"].clone(), inputs["attention_mask"]
    rows[:, :2] = rows[0, :2]
    lengths = mask.sum(1).tolist()
    assert max(lengths) > 2
    with engine() as (made, _):
        whole = made.activations.read(rows, mask, [Site(2), Site(3)], "all")
        prefix = made.activations.prefix(rows[:1, :2])
        assert prefix is not None
        behind = made.activations.read(rows[:, 2:], None, [Site(2), Site(3)], "all", prefix=prefix)
    for site, states in behind.items():
        for row, length in enumerate(lengths):
            assert torch.allclose(states[row, : max(length - 2, 0)], whole[site][row, 2:length], atol=1e-5)


@pytest.mark.parametrize("component", ["attn", "mlp"])
def test_parts_of_a_block_add_up_to_it(component):
    ids = TOKENIZER("some words here", return_tensors="pt")["input_ids"]
    with engine() as (made, _):
        sites = [Site(1), Site(2, "attn"), Site(2, "mlp"), Site(2)]
        read = made.activations.read(ids, None, sites, "all")
    total = read[Site(1)] + read[Site(2, "attn")] + read[Site(2, "mlp")]
    assert torch.allclose(total, read[Site(2)], atol=1e-5)
    assert read[Site(2, component)].shape == read[Site(2)].shape


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_heads_are_what_the_output_projection_mixes(architecture):
    inputs = batch(2)
    with engine(architecture) as (made, _):
        sites = [Site(2, "heads"), Site(2, "attn")]
        read = made.activations.read(inputs["input_ids"], inputs["attention_mask"], sites, "all")
        project = output_projection(submodule(made.blocks[1], "attn"))
        size = made.activations.head_size(2)
        pieces = read[sites[0]].split(size, dim=-1)
        nothing = project(torch.zeros_like(read[sites[0]]))
        total = nothing.clone()
        for head, piece in enumerate(pieces):
            alone = torch.zeros_like(read[sites[0]])
            alone[..., head * size : (head + 1) * size] = piece
            total += project(alone) - nothing
    assert len(pieces) == made.activations.heads == 4
    assert torch.allclose(total, read[sites[1]], atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_pass_may_start_above_layers_whose_states_are_known(architecture):
    inputs = batch(3)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with engine(architecture) as (made, bare):
        states = made.activations.read(ids, mask, [Site(2)], "all")[Site(2)]
        whole = bare(**inputs, position_ids=positions(inputs)).logits[:, -1]
        begun = made.activations.run(ids, mask, {}, Start(2, states), last=True)
        changed = made.activations.run(
            ids, mask, {Site(3, "mlp"): lambda values: values.zero_()}, Start(2, states), last=True
        )
    assert torch.allclose(begun, whole, atol=1e-5)
    assert not torch.allclose(changed, whole, atol=1e-2)


def test_sites_are_shown_in_the_order_in_which_the_pass_computes_them():
    inputs, seen = batch(2), []
    with engine() as (made, bare):
        sites = [Site(layer, component) for layer in (2, 1) for component in COMPONENTS]
        logits = made.activations.run(
            inputs["input_ids"],
            inputs["attention_mask"],
            {site: lambda values, site=site: seen.append(site) for site in sites},
        )
        assert torch.allclose(logits, bare(**inputs, position_ids=positions(inputs)).logits, atol=1e-5)
    assert seen == [Site(layer, component) for layer in (1, 2) for component in COMPONENTS]


def test_patching_a_run_into_itself_changes_nothing():
    ids = TOKENIZER("some words here", return_tensors="pt")["input_ids"]
    with engine() as (made, bare):
        value = made.activations.read(ids, None, [Site(2)], "all")[Site(2)]
        logits = made.activations.patch(ids, None, [Edit(Site(2), value)])
        assert torch.allclose(logits, bare(ids).logits, atol=1e-5)


def test_patching_the_residual_everywhere_gives_the_other_run():
    first, second = (
        TOKENIZER(text, return_tensors="pt")["input_ids"] for text in ("some words", "more books")
    )
    with engine() as (made, bare):
        for layer in range(5):
            value = made.activations.read(second, None, [Site(layer)], "all")[Site(layer)]
            logits = made.activations.patch(first, None, [Edit(Site(layer), value)])
            assert torch.allclose(logits, bare(second).logits, atol=1e-4), layer


def test_one_position_can_be_patched():
    ids = TOKENIZER("some words", return_tensors="pt")["input_ids"]
    with engine() as (made, bare):
        logits = made.activations.patch(ids, None, [Edit(Site(2), torch.zeros(32), position=4)])
        plain = bare(ids).logits
    assert torch.allclose(logits[:, :4], plain[:, :4], atol=1e-5)
    assert not torch.allclose(logits[:, 4], plain[:, 4], atol=1e-3)


@pytest.mark.parametrize("site", [Site(5), Site(-1), Site(0, "mlp")])
def test_sites_that_do_not_exist_are_errors(site):
    with engine() as (made, _), pytest.raises(ModelError, match="not in this model"):
        made.activations.read(batch(1)["input_ids"], None, [site])


def test_reading_leaves_a_guards_own_instruments_in_place():
    with engine() as (made, _):
        generate(made, plan((2,)), Fixed(), **batch(1))
        before = [block.__dict__.get("forward") for block in made.blocks]
        made.activations.read(batch(1)["input_ids"], None, [Site(layer) for layer in range(5)])
        assert [block.__dict__.get("forward") for block in made.blocks] == before
        evaluator = Fixed()
        generate(made, plan((2,)), evaluator, **batch(1))
    assert len(evaluator.readings[0]) == 1


def test_a_model_that_the_user_compiled_is_read_as_it_runs_without():
    inputs = batch(2)
    with engine() as (made, _):
        plainly = made.activations.read(inputs["input_ids"], inputs["attention_mask"], [Site(2)])
        made.inner.compile(backend="eager")
        try:
            made.inner(**inputs)
            compiled = made.activations.read(inputs["input_ids"], inputs["attention_mask"], [Site(2)])
        finally:
            torch._dynamo.reset()
    assert torch.equal(compiled[Site(2)], plainly[Site(2)])
