"""Batches in which some rows are stopped: they leave, the others go on as if alone."""

import pytest
import torch
from tiny import TOKENIZER, Fixed, batch, engine, generate, plan, steering
from transformers import TextStreamer

pytestmark = pytest.mark.usefixtures("executors")

GREEDY = {"do_sample": False, "min_new_tokens": 6}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral", "gemma3_text", "mixtral"])
def test_rows_that_go_on_equal_the_same_rows_run_without_the_stopped_ones(architecture):
    inputs = batch(4)
    with engine(architecture) as (made, bare):
        result = generate(made, plan(), Fixed(("block", "allow")), **inputs, **GREEDY)
        rest = {name: tensor[[1, 3]] for name, tensor in inputs.items()}
        expected = bare.generate(**rest, **GREEDY, max_new_tokens=6, pad_token_id=0)
    assert result.kept == [1, 3]
    assert torch.equal(result.output, expected)


def test_a_batch_of_stopped_rows_samples_nothing():
    calls = []
    with engine() as (made, _):
        made.blocks[3].register_forward_pre_hook(lambda m, args: calls.append(1))
        result = generate(made, plan((2,)), Fixed(("block",)), **batch(4), **GREEDY)
    assert (result.kept, result.output, calls) == ([], None, [])


def test_stopped_allowed_and_steered_rows_share_a_batch():
    spec = steering("add", (1, 4))
    inputs = batch(6)
    with engine() as (made, bare):
        result = generate(
            made, plan((3,), spec), Fixed(("block", "steer", "allow"), (spec,)), **inputs, **GREEDY
        )
        plain = bare.generate(**inputs, **GREEDY, max_new_tokens=6, pad_token_id=0)
    assert result.kept == [1, 2, 4, 5]
    assert result.passes == {1: 6, 4: 6}
    assert torch.equal(result.output[[1, 3]], plain[[2, 5]])
    assert not torch.equal(result.output[[0, 2]], plain[[1, 4]])


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("as_dict", [False, True])
def test_a_blocked_row_is_prompt_message_end_and_padding(samples, as_dict):
    inputs = batch(3)
    kwargs = {
        **inputs,
        "do_sample": samples > 1,
        "num_return_sequences": samples,
        "return_dict_in_generate": as_dict,
    }
    kwargs |= {"max_new_tokens": 20, "min_new_tokens": 20, "pad_token_id": 0}
    with engine() as (made, _):
        result = generate(made, plan(), Fixed(("allow", "block", "allow")), **kwargs)
        output = made.assemble(kwargs, result, {1: "No."})
    sequences = output.sequences if as_dict else output
    width = inputs["input_ids"].shape[1]
    assert sequences.shape == (3 * samples, width + 20)
    for row in range(samples, 2 * samples):
        said = sequences[row, width:].tolist()
        message = TOKENIZER("No.", add_special_tokens=False)["input_ids"]
        assert sequences[row, :width].tolist() == inputs["input_ids"][1].tolist()
        assert said == [*message, TOKENIZER.eos_token_id] + [0] * (19 - len(message))


def test_scores_of_beams_are_missing_for_blocked_rows():
    kwargs = {
        **batch(2),
        "num_beams": 2,
        "return_dict_in_generate": True,
        "output_scores": True,
        "max_new_tokens": 4,
        "pad_token_id": 0,
    }
    with engine() as (made, _):
        result = generate(made, plan(), Fixed(("block", "allow")), **kwargs)
        output = made.assemble(kwargs, result, {0: "No."})
    assert output.sequences_scores.isnan().tolist() == [True, False]


def test_a_streamer_gets_the_message_of_a_blocked_prompt(capsys):
    streamer = TextStreamer(TOKENIZER, skip_prompt=True, skip_special_tokens=True)
    kwargs = {**batch(1), "streamer": streamer, "max_new_tokens": 4}
    with engine() as (made, _):
        result = generate(made, plan(), Fixed(("block",)), **kwargs)
        made.assemble(kwargs, result, {0: "Not this."})
    assert capsys.readouterr().out.strip() == "Not this."


def test_a_streamer_sees_a_steered_reply_once(capsys):
    spec = steering("add", (4,))
    streamer = TextStreamer(TOKENIZER, skip_prompt=True)
    with engine() as (made, _):
        result = generate(
            made, plan((3,), spec), Fixed(("steer",), (spec,)), **batch(1), **GREEDY, streamer=streamer
        )
    width = batch(1)["input_ids"].shape[1]
    assert capsys.readouterr().out.strip("\n") == TOKENIZER.decode(result.output[0, width:]).strip("\n")
