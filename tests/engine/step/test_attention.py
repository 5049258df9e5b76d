"""Attention of a step: the numbers are torch's, and all else is left to torch."""

import os
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from raylora.engine.step.attention import NAME, step_attention, use_step_attention

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler"
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class Layer(nn.Module):
    """As much of an attention layer as is asked of it."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups
        self.is_causal = True


def window(rows: int, kv_heads: int, columns: int, size: int, dtype: torch.dtype) -> Tensor:
    """Keys or values as the running batch has them: columns out of a larger buffer."""
    return torch.randn(rows + 1, kv_heads, columns + 9, size).to(dtype)[:rows, :, 4 : columns + 4]


def exactly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    k, v = (part.double().repeat_interleave(groups, 1) for part in (key, value))
    scores = query.double() @ k.transpose(2, 3) * query.shape[3] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    layer = Layer(query.shape[1] // key.shape[1])
    with torch.inference_mode():
        return step_attention(layer, query, key, value, mask)[0]


@needs_compiler
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("groups", range(1, 10))
@pytest.mark.parametrize(("rows", "columns", "size"), [(1, 1, 64), (3, 64, 33), (5, 201, 128)])
def test_each_row_attends_to_what_it_may_see(
    rows: int, columns: int, size: int, groups: int, dtype: torch.dtype, within: float
) -> None:
    query = torch.randn(rows, 2 * groups, 1, size).to(dtype) * 3
    key, value = (window(rows, 2, columns, size, dtype) for _ in range(2))
    first = torch.arange(rows)[:, None] * 70 % columns
    mask = (torch.arange(columns) >= first)[:, None, None]
    for own in (mask, mask[-1:], None):
        found = attend(query, key, value, own)
        assert found.shape == (rows, 1, 2 * groups, size)
        wanted = exactly(query, key, value, own)
        torch.testing.assert_close(found.double(), wanted, rtol=within, atol=within)


@needs_compiler
def test_scores_that_grow_by_hundreds_from_piece_to_piece() -> None:
    query = torch.full((1, 1, 1, 64), 8.0)
    key = torch.linspace(-40, 40, 300)[None, None, :, None].expand(1, 1, 300, 64).contiguous()
    value = torch.randn(1, 1, 300, 64)
    found = attend(query, key, value, None)
    torch.testing.assert_close(found.double(), exactly(query, key, value, None), rtol=0, atol=1e-5)
    falling = attend(query, key.flip(2), value.flip(2), None)
    torch.testing.assert_close(falling, found, rtol=0, atol=1e-5)


@needs_compiler
def test_hidden_columns_may_hold_anything_finite() -> None:
    query, (key, value) = torch.randn(2, 4, 1, 16), (window(2, 4, 90, 16, torch.float32),) * 2
    mask = (torch.arange(90) >= torch.tensor([[80], [3]]))[:, None, None]
    found = attend(query, key, value, mask)
    key, value = (part.clone() for part in (key, value))
    key[0, :, :80], value[0, :, :80] = 1e30, -1e30
    assert torch.equal(attend(query, key, value, mask), found)


@needs_compiler
def test_two_threads_give_the_same() -> None:
    query, (key, value) = torch.randn(5, 6, 1, 64), (window(5, 3, 70, 64, torch.float32),) * 2
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = attend(query, key, value, None)
        torch.set_num_threads(2)
        assert torch.equal(attend(query, key, value, None), alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("queries", [1, 5])
def test_the_rest_is_torchs(queries: int) -> None:
    """Several queries a row, a bias for a mask, values of another shape, gradients."""
    query = torch.randn(2, 4, queries, 16, requires_grad=True)
    key, value = torch.randn(2, 2, 9, 16), torch.randn(2, 2, 9, 16)
    seen = torch.ones(2, 1, queries, 9, dtype=torch.bool)
    bias = torch.zeros(2, 1, queries, 9)
    for mask in (seen, bias):
        found, _ = step_attention(Layer(2), query, key, value, mask)
        wanted = exactly(query, key, value, None)
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-6)
    found.sum().backward()
    assert query.grad is not None


@needs_compiler
def test_a_model_that_attends_by_torch_attends_so() -> None:
    model = tiny("sdpa")
    ids = torch.arange(12).view(2, 6)
    with torch.inference_mode():
        before = model(ids, use_cache=True)
        wanted = model(ids[:, :1], past_key_values=before.past_key_values).logits
        assert use_step_attention(model)
        again = model(ids, use_cache=True)
        found = model(ids[:, :1], past_key_values=again.past_key_values).logits
    assert torch.equal(before.logits, again.logits)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert model.config._attn_implementation == NAME


def test_a_model_that_attends_otherwise_is_left_as_it_is() -> None:
    model = tiny("eager")
    assert not use_step_attention(model)
    assert model.config._attn_implementation == "eager"


def tiny(attention: str) -> Any:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
