"""Which models can be guarded, and which are refused with the reason."""

import pytest
import torch
from tiny import TOKENIZER, Fixed, batch, generate, plan, steering
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from guardrail.engines.transformers.blocks import decoder_blocks
from guardrail.engines.transformers.engine import TransformersEngine
from guardrail.errors import ModelError
from guardrail.testing import ARCHITECTURES, tiny_model

GREEDY = {"do_sample": False, "min_new_tokens": 6}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_decoder_blocks_are_found_in_every_architecture(architecture):
    assert len(decoder_blocks(tiny_model(architecture, layers=3))) == 3


def test_encoder_decoder_models_are_refused():
    config = AutoConfig.for_model("t5", d_model=16, d_ff=16, num_layers=1, num_heads=2, vocab_size=50)
    with pytest.raises(ModelError, match="encoder-decoder"):
        TransformersEngine(AutoModelForSeq2SeqLM.from_config(config), TOKENIZER)


@pytest.mark.parametrize("kind", ["mamba", "mamba2", "rwkv"])
def test_state_space_models_are_refused(kind):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 50, "attention_hidden_size": 16}
    extra = {"num_heads": 4, "head_dim": 8, "n_groups": 1} if kind == "mamba2" else {}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **extra))
    with pytest.raises(ModelError, match="recurrent state"):
        TransformersEngine(model, TOKENIZER)


def test_hybrid_models_are_refused():
    config = AutoConfig.for_model(
        "qwen3_next",
        hidden_size=32,
        num_hidden_layers=4,
        vocab_size=50,
        num_experts=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=16,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    )
    with pytest.raises(ModelError, match="hybrid"):
        TransformersEngine(AutoModelForCausalLM.from_config(config), TOKENIZER)


def test_an_object_that_is_not_a_model_is_refused():
    with pytest.raises(ModelError, match="not a transformers model"):
        TransformersEngine(torch.nn.Linear(2, 2), TOKENIZER)


def test_a_model_has_one_guard_at_a_time():
    model = tiny_model()
    first = TransformersEngine(model, TOKENIZER)
    with pytest.raises(ModelError, match="another guard"):
        TransformersEngine(model, TOKENIZER)
    first.close()
    TransformersEngine(model, TOKENIZER).close()


def test_a_missing_tokenizer_or_chat_template_is_an_error_with_the_fix():
    with pytest.raises(ModelError, match="tokenizer"):
        TransformersEngine(tiny_model(), None)
    from guardrail.testing import tiny_tokenizer

    bare = tiny_tokenizer()
    bare.chat_template = None
    with pytest.raises(ModelError, match="builtin:plain"):
        TransformersEngine(tiny_model(), bare)
    TransformersEngine(tiny_model(), bare, chat_template="builtin:plain").close()


peft_warns = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@peft_warns
def test_lora_models_are_guarded_and_steered_like_bare_ones():
    peft = pytest.importorskip("peft")
    import copy

    config = peft.LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    torch.manual_seed(0)
    model = peft.get_peft_model(tiny_model(), config)
    bare = copy.deepcopy(model)
    made = TransformersEngine(model, TOKENIZER)
    spec = steering("add", (2,))
    output = generate(made, plan(), Fixed(), **batch(2), **GREEDY).output
    steered = generate(made, plan((3,), spec), Fixed(("steer",), (spec,)), **batch(2), **GREEDY)
    assert torch.equal(output, bare.generate(**batch(2), **GREEDY, max_new_tokens=6, pad_token_id=0))
    assert steered.passes == {0: 6, 1: 6}
    assert "+added:" in made.fingerprint.weights
    made.close()


@peft_warns
def test_prompt_learning_adapters_are_refused():
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with pytest.raises(ModelError, match="prompt-learning"):
        TransformersEngine(peft.get_peft_model(tiny_model(), config), TOKENIZER)


def test_models_dispatched_by_accelerate_are_guarded():
    accelerate = pytest.importorskip("accelerate")
    import copy

    model = tiny_model()
    bare = copy.deepcopy(model)
    devices = {
        "model.embed_tokens": "cpu",
        "model.layers": "cpu",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    }
    model = accelerate.dispatch_model(model, devices, main_device="cpu", force_hooks=True)
    assert "forward" in model.__dict__, "accelerate should have replaced forward"
    before = {name: m.__dict__["forward"] for name, m in model.named_modules() if "forward" in m.__dict__}
    made = TransformersEngine(model, TOKENIZER)
    output = generate(made, plan(), Fixed(), **batch(2), **GREEDY).output
    made.close()
    after = {name: m.__dict__["forward"] for name, m in model.named_modules() if "forward" in m.__dict__}
    assert torch.equal(output, bare.generate(**batch(2), **GREEDY, max_new_tokens=6, pad_token_id=0))
    assert before == after


def test_the_text_tower_of_a_vision_model_is_guarded():
    import copy

    from transformers import Gemma3ForConditionalGeneration

    text = tiny_model("gemma3_text").config.to_dict()
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = AutoConfig.for_model(
        "gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=3
    )
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(config).eval()
    bare = copy.deepcopy(model)
    made = TransformersEngine(model, TOKENIZER)
    output = generate(made, plan(), Fixed(), **batch(2), **GREEDY, eos_token_id=2).output
    assert torch.equal(
        output, bare.generate(**batch(2), **GREEDY, eos_token_id=2, max_new_tokens=6, pad_token_id=0)
    )
    assert made.fingerprint.layers == 4
    made.close()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_guarded_and_scored_in_float32(dtype):
    import copy

    model = tiny_model().to(dtype)
    bare = copy.deepcopy(model)
    made = TransformersEngine(model, TOKENIZER)
    evaluator = Fixed()
    output = generate(made, plan(), evaluator, **batch(3), **GREEDY).output
    assert torch.equal(output, bare.generate(**batch(3), **GREEDY, max_new_tokens=6, pad_token_id=0))
    spec = steering("add", (1,))
    assert generate(made, plan((3,), spec), Fixed(("steer",), (spec,)), **batch(1), **GREEDY).passes == {0: 6}
    made.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("bits", ["load_in_8bit", "load_in_4bit"])
def test_quantised_models_are_guarded_and_steered(bits, tmp_path):
    pytest.importorskip("bitsandbytes")
    from dataclasses import replace

    from tiny import random_vector
    from transformers import BitsAndBytesConfig

    tiny_model(d_model=64).save_pretrained(tmp_path)
    arguments = {"quantization_config": BitsAndBytesConfig(**{bits: True}), "device_map": {"": "cpu"}}
    model, bare = (AutoModelForCausalLM.from_pretrained(tmp_path, **arguments) for _ in range(2))
    spec = replace(steering("add", (1,)), directions=(random_vector(2, 64, 3.0),))
    active = plan((3,), spec)
    active = replace(active, probes=(replace(active.probes[0], weights=random_vector(1, 64)),))
    made = TransformersEngine(model, TOKENIZER)
    output = generate(made, active, Fixed(), **batch(2), **GREEDY).output
    steered = generate(made, active, Fixed(("steer",), (spec,)), **batch(2), **GREEDY)
    made.close()
    assert torch.equal(output, bare.generate(**batch(2), **GREEDY, max_new_tokens=6, pad_token_id=0))
    assert steered.passes == {0: 6, 1: 6}
    assert not torch.equal(steered.output, output)
