"""Adapters that start from the base's weights: what they begin as, and what is saved of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM

from raylora.config.lora_spec import Init, LoraSpec
from raylora.config.model_spec import DType, ModelSource, ModelSpec, Quantization
from raylora.errors import InvalidAdapter, InvalidConfig
from raylora.lora.adapter_config import CONFIG, read
from raylora.lora.attach import attach, save_adapter
from raylora.lora.bank.bank import Bank
from raylora.lora.base import load_base
from raylora.lora.devices import Device, DeviceKind
from raylora.lora.integrity import verify
from raylora.lora.sources import LocalModel

IDS = torch.randint(3, 259, (2, 12), generator=torch.Generator().manual_seed(0))
LAYER = "model.layers.0.mlp.up_proj"
VARIANTS = [
    {"init_lora_weights": Init.PISSA},
    {"init_lora_weights": Init.PISSA, "pissa_niter": 4, "use_rslora": True},
    {"init_lora_weights": Init.OLORA, "use_rslora": True, "lora_alpha": 3.5},
    {
        "init_lora_weights": Init.OLORA,
        "rank_pattern": {"q_proj": 2, "1.self_attn.q_proj": 6},
        "alpha_pattern": {"mlp.up_proj": 3, "k_proj": 5.5},
    },
]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.float()


def train(model: PeftModel) -> None:
    """A few steps of plain gradient descent, in the model's own numbers."""
    for _ in range(4):
        model(input_ids=IDS, labels=IDS).loss.backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.data -= 0.3 * parameter.grad
                parameter.grad = None


def served(base: Any, directory: Path) -> torch.Tensor:
    bank = Bank(base)
    bank.add("a", directory)
    with bank.rows(["a"] * len(IDS)):
        out = logits(base)
    bank.close()
    return out


@pytest.fixture
def fresh(tiny_config):
    """The tiny model again and again, with the same weights."""

    def make(dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model: Any = LlamaForCausalLM(tiny_config)
            return model.to(dtype).requires_grad_(False).eval()

    return make


@pytest.mark.parametrize("fields", VARIANTS)
def test_what_changed_the_base_is_saved_for_the_base_as_it_was(fresh, fields, tmp_path) -> None:
    untouched = logits(fresh())
    model = attach(fresh(), LoraSpec(r=4, **fields), seed=0)
    changed: Any = model.get_submodule(f"base_model.model.{LAYER}")
    assert not torch.equal(changed.base_layer.weight, fresh().get_submodule(LAYER).weight)
    torch.testing.assert_close(logits(model), untouched, rtol=1e-4, atol=1e-5)

    train(model)
    wanted = logits(model)
    save_adapter(model, tmp_path / "a", LocalModel(tmp_path, "t", "r", "t"), {})
    assert (wanted - untouched).abs().max() > 0.1
    torch.testing.assert_close(served(fresh(), tmp_path / "a"), wanted, rtol=1e-4, atol=1e-4)
    facts = verify(tmp_path / "a", base_config=fresh().config)
    assert facts.layers == 14
    assert facts.r == 2 * max(4, *fields.get("rank_pattern", {"": 0}).values())
    config = read(tmp_path / "a" / CONFIG)
    assert {config.scale(layer) for layer in (LAYER, "model.layers.1.self_attn.q_proj")} == {1.0}

    by_peft = PeftModel.from_pretrained(fresh(), tmp_path / "a")
    torch.testing.assert_close(logits(by_peft), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("init", [Init.PISSA, Init.OLORA])
def test_in_bf16_as_much_comes_back_as_rounding_leaves(fresh, init, tmp_path) -> None:
    """The base's weights without the part that was taken out are rounded to bf16 anew."""
    model = attach(fresh(torch.bfloat16), LoraSpec(r=4, init_lora_weights=init), seed=0)
    train(model)
    wanted = logits(model)
    save_adapter(model, tmp_path / "a", LocalModel(tmp_path, "t", "r", "t"), {})
    missed = (served(fresh(torch.bfloat16), tmp_path / "a") - wanted).abs().mean()
    effect = (logits(fresh(torch.bfloat16)) - wanted).abs().mean()
    assert missed < 0.02 * effect


@pytest.mark.parametrize("init", [Init.PISSA, Init.OLORA])
def test_they_start_as_pefts(fresh, init) -> None:
    ours = attach(fresh(), LoraSpec(r=4, lora_alpha=6, init_lora_weights=init), seed=0)
    config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", init_lora_weights=init)
    theirs = get_peft_model(fresh(), config)
    layers = [model.get_submodule(f"base_model.model.{LAYER}") for model in (ours, theirs)]
    first, second = ({n: p.data for n, p in layer.named_parameters()} for layer in layers)
    for name in ("lora_A.default.weight", "lora_B.default.weight", "base_layer.weight"):
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-5)


def test_an_untrained_one_is_seen(fresh, tmp_path) -> None:
    model = attach(fresh(), LoraSpec(r=4, init_lora_weights=Init.PISSA), seed=0)
    save_adapter(model, tmp_path / "a", LocalModel(tmp_path, "t", "r", "t"), {})
    with pytest.raises(InvalidAdapter, match="every lora_B is zero"):
        verify(tmp_path / "a")


def test_a_rank_that_a_weight_does_not_have_is_refused(fresh) -> None:
    with pytest.raises(InvalidConfig, match=r"lora\.r: pissa with rank 40.*k_proj.*at most 32"):
        attach(fresh(), LoraSpec(r=40, init_lora_weights=Init.PISSA), seed=0)


@pytest.mark.parametrize("quantization", [Quantization.NF4, Quantization.FP4])
@pytest.mark.parametrize("double", [False, True])
def test_loftq_makes_up_for_rounding_and_serves_on_the_plain_quantised_base(
    tiny_base: Path, fresh, quantization, double, tmp_path: Path
) -> None:
    local = LocalModel(tiny_base, "tiny", "rev-1", "tiny")
    spec = ModelSpec(
        source=ModelSource.PATH, dtype=DType.FP32, quantization=quantization, double_quant=double
    )
    load = lambda: load_base(local, spec, Device(DeviceKind.CPU))  # noqa: E731
    lost = (logits(load()) - logits(fresh())).abs().mean()
    lora = LoraSpec(r=16, use_rslora=True, init_lora_weights=Init.LOFTQ)
    model = attach(load(), lora, seed=0)
    assert (logits(model) - logits(fresh())).abs().mean() < 0.8 * lost

    train(model)
    save_adapter(model, tmp_path / "a", local, {})
    assert verify(tmp_path / "a", base_config=model.config).r == 16
    torch.testing.assert_close(served(load(), tmp_path / "a"), logits(model))


def test_loftq_needs_the_weights_on_disk(tiny_base: Path, tmp_path: Path) -> None:
    local = LocalModel(tiny_base, "tiny", "rev-1", "tiny")
    spec = ModelSpec(source=ModelSource.PATH, quantization=Quantization.NF4)
    base = load_base(local, spec, Device(DeviceKind.CPU))
    base.name_or_path = str(tmp_path)
    with pytest.raises(InvalidConfig, match=r"init_lora_weights.*before they were quantised"):
        attach(base, LoraSpec(init_lora_weights=Init.LOFTQ), seed=0)
