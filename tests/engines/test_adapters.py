"""Every kind of adapter of peft: what is done with one is noticed, at load and by the next request."""

from __future__ import annotations

import pytest
import torch
from tiny import NEVER, TOKENIZER, guard, policy, write_vectors

from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.model import LocalModel
from guardrail.engines.transformers.watch import Watch
from guardrail.errors import ModelError
from guardrail.testing import tiny_model

peft = pytest.importorskip("peft")
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING  # noqa: E402
from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
KINDS = [kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING]
PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CARTRIDGE")
OPTIONS = {
    "ADALORA": {"total_step": 10},
    "IA3": {"feedforward_modules": []},
    "ADAPTION_PROMPT": {"adapter_layers": 2, "adapter_len": 4, "target_modules": None},
    "TRAINABLE_TOKENS": {"token_indices": [20, 21, 22], "target_modules": None},
    "LN_TUNING": {"target_modules": ["norm"]},
    "C3A": {"block_size": 8},
    "MISS": {"r": 4},
    "SHIRA": {"r": 2},
    "ROAD": {"group_size": 8},
    "VBLORA": {"vector_length": 16, "num_vectors": 8, "r": 2, "topk": 2},
    "WAVEFT": {"n_frequency": 50},
    **{kind: {"num_virtual_tokens": 4, "target_modules": None} for kind in PROMPTS},
    "CPT": {
        "cpt_token_ids": [20, 21],
        "cpt_mask": [1, 1],
        "cpt_tokens_type_mask": [1, 2],
        "target_modules": None,
    },
}
TARGETS = ["q_proj", "v_proj"]


def config(kind, **more):
    """The kind's configuration. Skips a kind that does not fit a tiny Llama."""
    options = {"task_type": "CAUSAL_LM", "target_modules": TARGETS, **OPTIONS.get(kind, {}), **more}
    make = PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(kind)]
    return make(**{name: value for name, value in options.items() if value is not None})


def square(layers=2):
    """Query and value projections are square, which some kinds need."""
    return tiny_model(layers=layers, num_key_value_heads=4)


@torch.no_grad()
def stirred(model):
    """The same model with adapters that do something: most begin as no change at all."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.add_(
                0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
            )
    return model


def adapted(kind):
    if kind in {*PROMPTS, "CPT"}:
        pytest.skip("prompt-learning adapters are refused")
    try:
        model = stirred(peft.get_peft_model(square(), config(kind)))
    except Exception as error:
        pytest.skip(f"peft makes no {kind} of a tiny Llama: {type(error).__name__}: {error}")
    return model if runs(model.get_base_model()) else pytest.skip(f"{kind} is refused: its wrapper does more")


def weights(model):
    return fingerprint(model, TOKENIZER, TOKENIZER.chat_template, {}).weights


@torch.no_grad()
def says(model):
    return model.eval()(torch.arange(20, 28)[None]).logits


def runs(model):
    """Whether the model runs without its wrapper."""
    try:
        return says(model) is not None
    except Exception:
        return False


def scale(model):
    """Ten times the scaling of every adapter that has one, wherever it is kept."""
    found = False
    for module in model.modules():
        for name in ("scaling", "lora_alpha", "alpha"):
            numbers = getattr(module, name, None)
            if isinstance(numbers, dict):
                found |= bool(numbers)
                numbers.update(
                    {key: 10 * value for key, value in numbers.items() if isinstance(value, float | int)}
                )
    assert found


def second(model):
    kind = next(iter(model.peft_config.values())).peft_type
    model.add_adapter("second", config(kind.value))
    stirred(model)


def switched(model):
    second(model)
    model.set_adapter("second")


def disabled(model):
    model.base_model.disable_adapter_layers()


@torch.no_grad()
def written(model):
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.mul_(1.5).add_(0.01)
            assert name
            return


DEEDS = {
    "second": second,
    "switched": switched,
    "disabled": disabled,
    "scaled": scale,
    "merged": lambda model: model.merge_adapter(),
    "merged and unloaded": lambda model: model.merge_and_unload(),
    "unloaded": lambda model: model.unload(),
    "deleted": lambda model: model.delete_adapter("default"),
    "written": written,
}
EVERY_DEED = ("LORA", "IA3", "OFT", "VERA", "FOURIERFT", "TRAINABLE_TOKENS", "LN_TUNING")
"""Products, factors, rotations, shared weights, spectra, rows, whole copies: one kind of each."""


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", KINDS)
def test_putting_an_adapter_in_is_noticed(kind):
    model = square()
    before, watch, said = weights(model), Watch(model), says(model)
    try:
        peft_model = stirred(peft.get_peft_model(model, config(kind)))
    except Exception as error:
        pytest.skip(f"peft makes no {kind} of a tiny Llama: {type(error).__name__}: {error}")
    if kind in {*PROMPTS, "CPT"}:
        with pytest.raises(ModelError, match="prompt-learning"):
            LocalModel(peft_model, TOKENIZER)
        return
    inner = peft_model.get_base_model()
    if not runs(inner):
        with pytest.raises(ModelError, match="a short prompt fails"):
            LocalModel(peft_model, TOKENIZER)
        return
    assert not torch.equal(says(inner), said)
    assert weights(inner) != before
    assert watch.change()


@pytest.mark.parametrize(
    ("kind", "deed"),
    [(kind, deed) for kind in KINDS for deed in (DEEDS if kind in EVERY_DEED else ("disabled", "written"))],
)
def test_what_is_done_with_an_adapter_is_noticed(kind, deed):
    """Unless it changes nothing that the model says: then it is no change."""
    model = adapted(kind)
    inner = model.get_base_model()
    before, watch, said = weights(inner), Watch(inner), says(inner)
    try:
        DEEDS[deed](model)
    except Exception as error:
        pytest.skip(f"{kind} cannot be {deed}: {type(error).__name__}: {error}")
    if torch.equal(says(inner), said):
        pytest.skip(f"{kind} {deed} changes nothing")
    assert watch.change(), "the next request"
    assert weights(inner) != before, "the next load"


def test_adapters_that_transformers_itself_puts_in_and_switches_are_noticed(tmp_path):
    for name, seed in (("one", 1), ("two", 2)):
        torch.manual_seed(seed)
        made = peft.get_peft_model(square(4), config("LORA", init_lora_weights=False))
        made.save_pretrained(tmp_path / name)
    model = square(4)
    with guard(tmp_path, policy(threshold=NEVER), model=model) as made:
        model.load_adapter(str(tmp_path / "one"), adapter_name="one")
        assert made.check("hello").decision.action == "block"
        write_vectors(tmp_path, model)
        assert made.policies.reload()
        assert made.check("hello").decision.action == "allow"
        found = {made.engine.fingerprint.weights}
        model.load_adapter(str(tmp_path / "two"), adapter_name="two")
        for name in ("one", "two"):
            for module in model.modules():
                if isinstance(module, BaseTunerLayer):
                    module.set_adapter(name)
            assert made.check("hello").decision.status == "error"
            found.add(weights(model))
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                module.enable_adapters(enabled=False)
        assert made.check("hello").decision.status == "error"
        found.add(weights(model))
    assert len(found) == 4
