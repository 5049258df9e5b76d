"""Weights kept in bf16 under an fp32 base: the same numbers out of half the memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families import FAMILIES
from torch import nn

from raylora.lora import narrow as narrow_module
from raylora.lora.base import compute_dtype, linear_shapes, unpacked
from raylora.lora.merging import merge
from raylora.lora.narrow import NarrowLinear, narrow, widen

IDS = torch.randint(3, 259, (2, 20), generator=torch.Generator().manual_seed(0))


def published(family: str) -> Any:
    """A base whose weights were published in bf16, in fp32."""
    return FAMILIES[family].make_model().bfloat16().float().requires_grad_(False)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_computes_in_fp32_as_before(family: str) -> None:
    model, shapes = published(family), linear_shapes(published(family))
    wanted, dtype = logits(model), compute_dtype(model)
    assert narrow(model) > 7
    assert linear_shapes(model) == shapes
    assert dtype is compute_dtype(model) is model.dtype is torch.float32
    assert {layer.weight.dtype for layer in model.modules() if type(layer) is NarrowLinear} == {
        torch.bfloat16
    }
    found = logits(model)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_tied_head_leaves_the_embeddings_as_they_are() -> None:
    model = published("smollm")
    embeddings = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is embeddings
    narrow(model)
    assert model.get_input_embeddings().weight is embeddings
    assert embeddings.dtype is torch.float32
    assert model.get_output_embeddings().weight.dtype is torch.bfloat16
    widen(model)
    assert model.get_output_embeddings().weight is embeddings


def test_widened_it_is_what_it_was() -> None:
    model, before = published("llama"), published("llama")
    narrow(model)
    widen(model)
    assert not any(isinstance(layer, NarrowLinear) for layer in model.modules())
    assert torch.equal(logits(model), logits(before))


def test_a_merge_is_rounded_to_fp32_alone(make_adapter: Any, tiny_model: Any, tiny_config) -> None:
    directory: Path = make_adapter("a")
    base = type(tiny_model)(tiny_config)
    base.load_state_dict({k: v.bfloat16() for k, v in tiny_model.state_dict().items()})
    base.requires_grad_(False)
    whole, _ = merge(unpacked(base), directory)
    wanted = logits(whole)
    again = type(tiny_model)(tiny_config)
    again.load_state_dict({k: v.bfloat16() for k, v in tiny_model.state_dict().items()})
    assert narrow(again.requires_grad_(False))
    assert torch.equal(logits(merge(again, directory)[0]), wanted)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("panel_bytes", [1, 64 * 4 * 10, 1 << 20])
def test_a_layer_in_panels(monkeypatch: pytest.MonkeyPatch, panel_bytes: int, bias: bool) -> None:
    monkeypatch.setattr(narrow_module, "PANEL_BYTES", panel_bytes)
    model = nn.Sequential(nn.Linear(64, 33, bias=bias).bfloat16().float().requires_grad_(False))
    x = torch.randn(3, 5, 64)
    with torch.inference_mode():
        wanted = model(x)
        assert narrow(model) == 1
        torch.testing.assert_close(model(x), wanted, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(model(x[0, 0]), wanted[0, 0], rtol=1e-6, atol=1e-6)


def test_weights_that_would_lose_something_stay() -> None:
    exact, rounded, trained = (nn.Linear(8, 8).bfloat16().float() for _ in range(3))
    model = nn.ModuleList([exact, rounded, trained, nn.Linear(8, 8).bfloat16()])
    rounded.weight.data[0, 0] += 1e-5
    model.requires_grad_(False)
    trained.requires_grad_(True)
    assert narrow(model) == 1
    assert [type(layer) for layer in model] == [NarrowLinear, nn.Linear, nn.Linear, nn.Linear]
    assert model[1].weight.dtype is torch.float32
