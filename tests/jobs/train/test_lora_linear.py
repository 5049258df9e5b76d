from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from raylora.config.model_spec import ModelSpec
from raylora.jobs.train.lora_linear import fuse_lora
from raylora.jobs.train.route import Route
from raylora.lora.base import load_base
from raylora.lora.devices import pick
from raylora.lora.sources import fetch

LAYERS = 14


def adapted(base, **config):
    model = get_peft_model(
        base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **config)
    )
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1, generator=generator)
    return model.train()


def llama(**fields) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **fields,
    )
    return LlamaForCausalLM(config).requires_grad_(False)


def outputs(model) -> tuple[torch.Tensor, list[torch.Tensor]]:
    ids = torch.arange(24).view(2, 12)
    logits = model(input_ids=ids).logits
    trained = [p for p in model.parameters() if p.requires_grad]
    return logits, list(torch.autograd.grad(logits.square().mean(), trained))


def assert_gives_what_peft_gives(model) -> None:
    expected, reference = outputs(model)
    assert fuse_lora(model, Route()) == LAYERS
    logits, gradients = outputs(model)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(gradients, reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("fields", [{}, {"attention_bias": True, "mlp_bias": True}])
def test_gives_pefts_logits_and_gradients(fields):
    assert_gives_what_peft_gives(adapted(llama(**fields)))


def test_the_first_layer_needs_no_gradient_of_its_input():
    model = adapted(llama())
    fuse_lora(model, Route())
    outputs(model)
    embedded = model.get_input_embeddings()(torch.arange(4)[None])
    assert not embedded.requires_grad


@pytest.mark.parametrize("config", [{"use_dora": True}])
def test_layers_that_are_not_plain_are_left_as_they_are(config):
    model = adapted(llama(), **config)
    assert fuse_lora(model, Route()) == 0


def test_a_base_in_4_bits_gives_pefts_logits_and_gradients(tiny_base, tmp_path):
    where = {"source": "path", "id": str(tiny_base), "name": "tiny"}
    spec = ModelSpec.model_validate({"quantization": "nf4", "dtype": "fp32", **where})
    assert_gives_what_peft_gives(adapted(load_base(fetch(spec, tmp_path), spec, pick())))


def test_activation_checkpointing_changes_nothing():
    model = adapted(llama())
    fuse_lora(model, Route())
    expected, reference = outputs(model)
    base: Any = model.get_base_model()
    base.gradient_checkpointing_enable({"use_reentrant": False})
    logits, gradients = outputs(model)
    torch.testing.assert_close(logits, expected)
    for ours, theirs in zip(gradients, reference, strict=True):
        torch.testing.assert_close(ours, theirs)
