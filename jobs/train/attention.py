"""Causal attention within the documents of a packed row.

A row of a micro-batch is documents joined end to end; none of them may see another. On CUDA
torch's variable-length flash attention does that. Elsewhere each document is two batched matrix
products a block of queries: on a CPU torch's fused attention spends most of its time in the
backward pass (4 documents of 110 tokens with 9 heads, bf16, AMX, one thread: 23 ms fused, 8 ms
this way), and no padding and no copy of keys for grouped queries is made.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

NAME = "raylora_packed"
"""Under which transformers knows it."""

BLOCK = 256
"""Queries of a block: they need no keys past their own end, which halves the work of a long
document and bounds the memory of its scores."""


@dataclass(frozen=True)
class Documents:
    """Where the documents of a packed row begin and end."""

    lengths: tuple[int, ...]
    device: torch.device

    @cached_property
    def offsets(self) -> Tensor:
        """[documents + 1], int32, on the device: cumulated lengths from 0."""
        ends = torch.tensor([0, *self.lengths]).cumsum(0)
        return ends.to(self.device, torch.int32)

    @cached_property
    def blocks(self) -> "tuple[_Block, ...]":
        """Blocks of queries, document by document."""
        ends = accumulate(self.lengths)
        return tuple(
            _Block(end - length, first, min(first + BLOCK, end), self.device)
            for length, end in zip(self.lengths, ends, strict=True)
            for first in range(end - length, end, BLOCK)
        )


class _Block:
    """Queries [first, stop) of the document that begins at `start`."""

    def __init__(self, start: int, first: int, stop: int, device: torch.device) -> None:
        self.start, self.first, self.stop = start, first, stop
        self._device = device
        self.bias = lru_cache(maxsize=2)(self._bias)

    def _bias(self, window: int | None, groups: int, dtype: torch.dtype) -> Tensor:
        """-inf for keys that a query must not see, else 0: [groups * queries, keys]."""
        queries, keys = self.stop - self.first, self.stop - self.start
        key = torch.arange(keys, device=self._device)
        behind = key[keys - queries :, None] - key
        hidden = behind < 0 if window is None else (behind < 0) | (behind >= window)
        bias = torch.zeros(queries, keys, dtype=dtype, device=self._device)
        return bias.masked_fill_(hidden, float("-inf")).repeat(groups, 1)


def use_packed_attention(model: PreTrainedModel) -> None:
    """Let a model attend within `documents`, which its forward pass must then be given."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _no_mask)
    model.set_attn_implementation(NAME)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    documents: Documents,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: [1, heads, T, size] in, [1, T, heads, size] out.

    sliding_window is the number of keys that a query sees, itself included; softcap bounds the
    scores (Gemma 2).
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.is_cuda and query.dtype is not torch.float32 and softcap is None:
        return _flash(query, key, value, documents, scale, sliding_window), None
    return _Attention.apply(query, key, value, documents, scale, sliding_window, softcap), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Documents say who sees whom."""


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    documents: Documents,
    scale: float,
    window: int | None,
) -> Tensor:
    longest = max(documents.lengths)
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    out = varlen_attn(
        q,
        k,
        v,
        documents.offsets,
        documents.offsets,
        longest,
        longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=True,
    )
    assert isinstance(out, Tensor)
    return out[None]


class _Attention(torch.autograd.Function):
    """Softmax attention block by block; the backward pass uses the kept weights."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        documents: Documents,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        _, heads, length, size = query.shape
        out = query.new_empty(1, length, heads, size)
        weights: list[Tensor] = []
        for block in documents.blocks:
            q, k, v = _parts(block, query, key, value)
            weight = _scores(q, k, block, scale, window, softcap).softmax(-1)
            _place(out, block, weight @ v)
            weights.append(weight)
        ctx.save_for_backward(query, key, value, *weights)
        ctx.settings = (documents, scale, window, softcap)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        query, key, value, *weights = ctx.saved_tensors
        documents, scale, _, softcap = ctx.settings
        d_query = torch.empty_like(query)
        d_key, d_value = torch.zeros_like(key), torch.zeros_like(value)
        for block, weight in zip(documents.blocks, weights, strict=True):
            q, k, v = _parts(block, query, key, value)
            g = _grouped(grad[0].transpose(0, 1)[:, block.first : block.stop], len(k))
            # weight * (d_weight - sum of weight * d_weight)
            d_scores: Tensor = torch.ops.aten._softmax_backward_data(
                g @ v.transpose(1, 2), weight, -1, weight.dtype
            ).mul_(scale)
            if softcap is not None:
                # Hidden keys have no weight, so what they are multiplied with does not matter.
                capped = torch.tanh((q @ k.transpose(1, 2)) * (scale / softcap))
                d_scores *= 1 - capped**2
            d_query[0, :, block.first : block.stop] = _ungrouped(d_scores @ k, query.shape[1])
            d_key[0, :, block.start : block.stop] += d_scores.transpose(1, 2) @ q
            d_value[0, :, block.start : block.stop] += weight.transpose(1, 2) @ g
        return d_query, d_key, d_value, None, None, None, None


def _parts(
    block: _Block, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [kv heads, group * queries, size], keys and values [kv heads, keys, size]."""
    k, v = (part[0, :, block.start : block.stop] for part in (key, value))
    return _grouped(query[0, :, block.first : block.stop], len(k)), k, v


def _grouped(part: Tensor, kv_heads: int) -> Tensor:
    heads, length, size = part.shape
    return part.reshape(kv_heads, heads // kv_heads * length, size)


def _ungrouped(part: Tensor, heads: int) -> Tensor:
    kv_heads, rows, size = part.shape
    return part.reshape(heads, rows * kv_heads // heads, size)


def _place(out: Tensor, block: _Block, values: Tensor) -> None:
    out[0, block.first : block.stop] = _ungrouped(values, out.shape[2]).transpose(0, 1)


def _scores(
    q: Tensor,
    k: Tensor,
    block: _Block,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Masked scores [kv heads, group * queries, keys]."""
    groups = q.shape[1] // (block.stop - block.first)
    bias = block.bias(window, groups, q.dtype)
    if softcap is None:
        return torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale)
    return torch.tanh((q @ k.transpose(1, 2)) * (scale / softcap)) * softcap + bias
