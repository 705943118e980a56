"""Content that policies cannot read does not pass `generate`, whatever it is called."""

import pytest
import torch
from tiny import FIRES, NEVER, TOKENIZER, batch, guard, policy
from transformers import AutoConfig, Gemma3ForConditionalGeneration

from guardrail.errors import PromptError, UnsupportedGeneration
from guardrail.testing import tiny_model

IMAGE = 3
GREEDY = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": 2}


def seeing_model():
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        "gemma3",
        text_config=tiny_model("gemma3_text").config.to_dict(),
        vision_config={**vision, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        image_token_id=IMAGE,
    )
    torch.manual_seed(0)
    return Gemma3ForConditionalGeneration(config).eval()


def seen(brightness: float = 1.0):
    ids = torch.tensor([[1, *[IMAGE] * 4, 70, 71, 72]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": (ids == IMAGE).long(),
        "pixel_values": torch.full((1, 3, 28, 28), brightness),
    }


def test_an_image_is_stopped_by_policies_that_cannot_read_it(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER, message="No."), model=seeing_model()) as made:
        output = made.generate(**seen(), **GREEDY)
        (decision,) = made.last_decisions
    said = TOKENIZER.decode(output[0, 8:], skip_special_tokens=True)
    assert (decision.status, decision.action, said) == ("not_evaluated", "block", "No.")
    assert decision.error == "`pixel_values` cannot be read"


def test_an_image_that_policies_allow_is_seen_by_the_model_and_warned_about(tmp_path):
    model = seeing_model()
    plain = model.generate(**seen(), **GREEDY)
    with guard(tmp_path, policy(threshold=NEVER, unsupported_input="allow"), model=model) as made:
        output = made.generate(**seen(), **GREEDY)
        (decision,) = made.last_decisions
    assert torch.equal(output, plain)
    assert "pixel_values" in decision.warnings[-1]


def test_an_image_that_policies_allow_does_not_turn_policies_off(tmp_path):
    with guard(tmp_path, policy(threshold=FIRES, unsupported_input="allow"), model=seeing_model()) as made:
        made.generate(**seen(), **GREEDY)
        assert made.last_decisions[0].action == "block"


def test_images_of_several_prompts_are_refused_because_rows_may_leave(tmp_path):
    images = {name: value.repeat(2, *[1] * (value.dim() - 1)) for name, value in seen().items()}
    with (
        guard(tmp_path, policy(threshold=NEVER, unsupported_input="allow"), model=seeing_model()) as made,
        pytest.raises(UnsupportedGeneration, match="pixel_values"),
    ):
        made.generate(**images, **GREEDY)


@pytest.mark.parametrize("name", ["max_new_token", "debug"])
def test_a_misspelt_argument_is_the_models_own_error(tmp_path, name):
    with guard(tmp_path, policy()) as made, pytest.raises(ValueError, match=name):
        made.generate(**batch(1), **{name: 3})


def test_an_argument_that_is_none_is_not_there(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        made.generate(**batch(1), **GREEDY, inputs_embeds=None, labels=None)
        assert made.last_decisions[0].action == "allow"


def test_a_mode_of_generating_that_is_not_known_is_refused(tmp_path):
    with guard(tmp_path, policy()) as made:
        if not hasattr(made.model.generation_config, "use_mtp"):
            pytest.skip("this version of transformers has no such mode")
        with pytest.raises(UnsupportedGeneration, match="assisted_generation"):
            made.generate(**batch(1), use_mtp=True)
        with pytest.raises(UnsupportedGeneration, match="group_beam_search"):
            made.generate(**batch(1), num_beams=2, num_beam_groups=2)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([[1, -1, 5]], "holds -1, but this model's ids are 0 to"),
        ([[1, 10_000_000]], "holds 10000000, but this model's ids are 0 to"),
        ([[1.0, 2.0]], "is of torch.float32, but token ids are whole numbers"),
        (
            torch.ones((1, 3), dtype=torch.long).to_sparse(),
            r"is a sparse tensor; give `input_ids.to_dense\(\)`",
        ),
        ([1, 2], "of shape"),
    ],
)
def test_ids_that_the_model_cannot_take_are_named(tmp_path, ids, said):
    given = ids if isinstance(ids, torch.Tensor) else torch.tensor(ids)
    with guard(tmp_path, policy(threshold=NEVER)) as made, pytest.raises(PromptError, match=said):
        made.generate(given, **GREEDY)


def test_a_sparse_mask_is_named(tmp_path):
    ids = torch.ones((1, 3), dtype=torch.long)
    with (
        guard(tmp_path, policy(threshold=NEVER)) as made,
        pytest.raises(PromptError, match="`attention_mask` has to be a dense tensor"),
    ):
        made.generate(ids, attention_mask=ids.to_sparse(), **GREEDY)
