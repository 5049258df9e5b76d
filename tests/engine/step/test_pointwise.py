"""Norms and gates between the products of a layer: the numbers are torch's."""

import os
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, Qwen3Config

from raylora.engine.step.pointwise import use_pointwise

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler"
)
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def model(config: type = LlamaConfig, dtype: torch.dtype = torch.float32) -> Any:
    made: Any = AutoModelForCausalLM.from_config(config(**SIZES)).to(dtype).eval()
    made.requires_grad_(False)
    for name, parameter in made.named_parameters():
        if "norm" in name:
            parameter.add_(torch.randn_like(parameter))
    return made


def inputs(dtype: torch.dtype, *shape: int) -> Tensor:
    return (torch.randn(*shape) * torch.tensor([0.01, 1.0, 30.0])[:, None, None]).to(dtype)


def through(module: Any, x: Tensor) -> Any:
    with torch.inference_mode():
        return module(x)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("part", ["input_layernorm", "mlp"])
def test_the_numbers_are_torchs_up_to_the_order_of_sums(part: str, dtype: torch.dtype) -> None:
    made = model(dtype=dtype)
    module = getattr(made.model.layers[0], part)
    x = inputs(dtype, 3, 7, 48)
    wanted = through(module, x)
    assert use_pointwise(made) == 7
    found = through(module, x)
    # bf16: one unit of its 8 bits, where a sum fell on the other side of a half.
    within = 2e-6 if dtype is torch.float32 else 2**-7
    torch.testing.assert_close(
        found, wanted, rtol=within, atol=within * float(wanted.abs().mean())
    )
    assert dtype is torch.float32 or (found == wanted).float().mean() > 0.98


@needs_compiler
def test_norms_of_heads_are_norms_too() -> None:
    made = model(Qwen3Config)
    ids = torch.arange(12).view(2, 6)
    wanted = made(ids).logits
    assert use_pointwise(made) == 2 * 5 + 1
    torch.testing.assert_close(through(made, ids).logits, wanted, rtol=0, atol=2e-6)


@needs_compiler
def test_what_is_no_number_stays_in_its_row() -> None:
    made = model()
    use_pointwise(made)
    layer = made.model.layers[0]
    x = inputs(torch.float32, 3, 1, 48)
    clean = [through(part, x) for part in (layer.input_layernorm, layer.mlp)]
    x[1, 0, 0] = float("nan")
    for part, before in zip((layer.input_layernorm, layer.mlp), clean, strict=True):
        found = through(part, x)
        assert found[1].isnan().all()
        assert torch.equal(found[[0, 2]], before[[0, 2]])


@needs_compiler
def test_gradients_and_other_number_formats_go_through_the_modules_themselves() -> None:
    made = model()
    norm, mlp = made.model.layers[0].input_layernorm, made.model.layers[0].mlp
    use_pointwise(made)
    x = inputs(torch.float32, 3, 2, 48).requires_grad_()
    (norm(x).sum() + mlp(x).sum()).backward()
    assert x.grad is not None
    half = x.detach().bfloat16()
    assert torch.equal(through(norm, half), type(norm).forward(norm, half))


@needs_compiler
def test_rows_that_lie_apart() -> None:
    norm = model().model.norm
    wanted = inputs(torch.float32, 3, 4, 48)[:, -1]
    own = through(norm, wanted)
    made = model()
    made.model.norm.weight.copy_(norm.weight)
    use_pointwise(made)
    torch.testing.assert_close(through(made.model.norm, wanted), own, rtol=0, atol=2e-6)


def test_a_family_that_computes_otherwise_is_left_as_it_is() -> None:
    assert use_pointwise(model(Gemma2Config)) == 0


@needs_compiler
def test_a_module_that_has_another_forward_pass_keeps_it() -> None:
    made = model()
    made.model.norm.forward = own = lambda x: x
    assert use_pointwise(made) == 6
    assert made.model.norm.forward is own
    assert use_pointwise(made) == 0
