from pathlib import Path
from typing import Any

import pytest
import torch

from raylora.config.lora_spec import LoraSpec
from raylora.config.model_spec import DType, ModelSource, ModelSpec, Quantization
from raylora.lora.attach import attach
from raylora.lora.base import (
    compute_dtype,
    linear_shapes,
    linear_shapes_of,
    load_base,
    load_for_generation,
    load_tokenizer,
)
from raylora.lora.devices import Device, DeviceKind
from raylora.lora.sources import LocalModel, fetch

CPU = Device(DeviceKind.CPU)
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def spec(path: Path, quantization: Quantization = Quantization.NONE, dtype=DType.FP32):
    return ModelSpec(source=ModelSource.PATH, id=str(path), quantization=quantization, dtype=dtype)


@pytest.fixture
def local(tiny_base: Path, tmp_path: Path) -> LocalModel:
    return fetch(spec(tiny_base), tmp_path)


@pytest.mark.parametrize("quantization", list(Quantization))
@pytest.mark.parametrize("dtype", [DType.BF16, DType.FP32])
def test_the_base_is_frozen_in_the_dtype_asked_for(local, quantization, dtype) -> None:
    model = load_base(local, spec(local.path, quantization, dtype), CPU)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert compute_dtype(model) is CPU.dtype(dtype)
    assert model(IDS).logits.dtype is CPU.dtype(dtype)


def test_nf4_stores_linears_in_4_bits_but_not_the_head(local) -> None:
    plain = load_base(local, spec(local.path), CPU)
    model = load_base(local, spec(local.path, Quantization.NF4), CPU)
    layer: Any = model.get_submodule("model.layers.0.mlp.up_proj")
    assert layer.weight.dtype is torch.uint8
    assert layer.weight.quant_state.quant_type == "nf4"
    head: Any = model.get_output_embeddings()
    assert head.weight.dtype is torch.float32
    assert linear_shapes(model) == linear_shapes(plain)
    with torch.no_grad():
        assert 0 < (model(IDS).logits - plain(IDS).logits).abs().max() < 0.5


def test_double_quantisation_stores_the_scales_in_8_bits(local) -> None:
    wanted = spec(local.path, Quantization.FP4).model_copy(update={"double_quant": True})
    layer: Any = load_base(local, wanted, CPU).get_submodule("model.layers.0.mlp.up_proj")
    assert layer.weight.quant_state.quant_type == "fp4"
    assert layer.weight.quant_state.nested
    assert layer.weight.quant_state.absmax.dtype is torch.uint8


def test_int8_stores_linears_in_8_bits(local) -> None:
    model = load_base(local, spec(local.path, Quantization.INT8), CPU)
    layer: Any = model.get_submodule("model.layers.0.mlp.up_proj")
    assert layer.weight.dtype is torch.int8
    plain = load_base(local, spec(local.path), CPU)
    with torch.no_grad():
        assert 0 < (model(IDS).logits - plain(IDS).logits).abs().max() < 0.02


def test_in_8_bits_a_row_does_not_depend_on_its_neighbours(local) -> None:
    """As it would where columns with an outlier in any row are set apart."""
    layer: Any = load_base(local, spec(local.path, Quantization.INT8), CPU).get_submodule(
        "model.layers.0.mlp.up_proj"
    )
    calm, loud = torch.randn(1, 4, 64), 40 * torch.randn(1, 4, 64)
    torch.testing.assert_close(layer(torch.cat([calm, loud]))[:1], layer(calm))


def test_in_8_bits_gradients_are_those_of_the_unpacked_weight(local) -> None:
    wanted = spec(local.path, Quantization.INT8)
    packed = load_base(local, wanted, CPU).get_submodule("model.layers.0.mlp.up_proj")
    plain = load_for_generation(local, wanted, CPU).get_submodule("model.layers.0.mlp.up_proj")
    x = torch.randn(2, 3, 64, requires_grad=True)
    gradients = [torch.autograd.grad(layer(x).square().sum(), x)[0] for layer in (packed, plain)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("quantization", "double"),
    [
        (Quantization.NF4, False),
        (Quantization.NF4, True),
        (Quantization.FP4, False),
        (Quantization.INT8, False),
    ],
)
@pytest.mark.parametrize("dtype", [DType.BF16, DType.FP32])
def test_generation_on_a_cpu_has_the_numbers_of_few_bits_without_its_layers(
    local, quantization, double, dtype
) -> None:
    nf4 = spec(local.path, quantization, dtype).model_copy(update={"double_quant": double})
    model = load_for_generation(local, nf4, CPU)
    assert compute_dtype(model) is CPU.dtype(dtype)
    assert model.get_submodule("model.layers.0.mlp.up_proj").weight.dtype is CPU.dtype(dtype)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with torch.inference_mode():
        assert torch.equal(model(IDS).logits, load_base(local, nf4, CPU)(IDS).logits)


def test_generation_in_fp32_keeps_weights_published_in_bf16_so(local) -> None:
    plain = load_base(local, spec(local.path), CPU)
    plain.bfloat16().save_pretrained(local.path)
    model = load_for_generation(local, spec(local.path), CPU)
    assert model.get_submodule("model.layers.0.mlp.up_proj").weight.dtype is torch.bfloat16
    assert compute_dtype(model) is torch.float32
    wanted = load_base(local, spec(local.path), CPU)
    with torch.inference_mode():
        torch.testing.assert_close(model(IDS).logits, wanted(IDS).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("quantization", [Quantization.NF4, Quantization.FP4, Quantization.INT8])
def test_few_bits_train_as_before_after_an_eval_forward(local, quantization) -> None:
    """bitsandbytes alone repacks 4-bit weights in eval mode and then has no gradients."""

    def gradients(eval_first: bool) -> list[torch.Tensor]:
        model = attach(load_base(local, spec(local.path, quantization), CPU), LoraSpec(), 0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(0.01)
        if eval_first:
            with torch.no_grad():
                model.eval()(input_ids=IDS)
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    fresh, after = gradients(False), gradients(True)
    assert len(fresh) == 2 * 14
    assert all(torch.equal(a, b) for a, b in zip(fresh, after, strict=True))
    assert any(gradient.abs().max() > 0 for gradient in fresh)


def test_linear_shapes_need_only_the_config(tiny_config, tiny_model) -> None:
    shapes = linear_shapes_of(tiny_config)
    assert shapes == linear_shapes(tiny_model)
    assert shapes["model.layers.1.self_attn.k_proj"] == (32, 64)
    assert "lm_head" not in shapes
    assert len(shapes) == 14


def test_the_tokenizer_pads_on_the_left(local) -> None:
    tokenizer = load_tokenizer(local)
    batch = tokenizer(["a", "abc"], padding=True)
    assert batch["attention_mask"] == [[0, 0, 1], [1, 1, 1]]
    assert tokenizer.eos_token == "<|im_end|>"
    assert "<|im_start|>" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False
    )
