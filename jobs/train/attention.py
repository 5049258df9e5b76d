"""Causal attention within the documents of a packed row.

A row of a micro-batch is documents joined end to end; none of them may see another. On CUDA
torch's variable-length flash attention does that. Elsewhere each group of queries (documents.py)
is two batched matrix products: on a CPU torch's fused attention spends most of its time in the
backward pass (4 documents of 110 tokens with 9 heads, bf16, AMX, one thread: 23 ms fused, 8 ms
this way), and no copy of keys for grouped queries is made.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from raylora.jobs.train import softmax
from raylora.jobs.train.documents import Documents, Group

NAME = "raylora_packed"
"""Under which transformers knows it."""


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
    """Softmax attention group by group; the backward pass uses the kept weights."""

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
        _, kv_heads, length, size = key.shape
        q, k, v = (_by_kv_head(part, kv_heads) for part in (query, key, value))
        out = torch.empty_like(q)
        weights: list[Tensor] = []
        for group in documents.groups:
            weight = _weights(group.queries(q), group.keys(k), group, scale, window, softcap)
            group.put_queries(weight, group.keys(v), out)
            weights.append(weight)
        ctx.save_for_backward(q, k, v, *weights)
        ctx.settings = (documents, scale, window, softcap)
        return out.permute(1, 0, 2, 3).reshape(1, length, -1, size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *weights = ctx.saved_tensors
        documents, scale, window, softcap = ctx.settings
        grad = _by_kv_head(grads[0].transpose(1, 2), len(q))
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for group, weight in zip(documents.groups, weights, strict=True):
            rows, keys, g = group.queries(q), group.keys(k), group.grads(grad)
            d_scores = _d_scores(g @ group.keys(v).transpose(1, 2), weight, group, scale, window)
            if softcap is not None:
                # Hidden keys have no weight, so what they are multiplied with does not matter.
                capped = torch.tanh((rows @ keys.transpose(1, 2)) * (scale / softcap))
                d_scores *= 1 - capped**2
            group.put_queries(d_scores, keys, d_q)
            group.add_keys(d_scores.transpose(1, 2), rows, d_k)
            group.add_keys(weight.transpose(1, 2), g, d_v)
        return *(_by_head(part) for part in (d_q, d_k, d_v)), None, None, None, None


def _by_kv_head(part: Tensor, kv_heads: int) -> Tensor:
    """[1, heads, T, size] to [kv heads, T, groups, size], a document's rows together."""
    return part[0].unflatten(0, (kv_heads, -1)).transpose(1, 2).contiguous()


def _by_head(part: Tensor) -> Tensor:
    """Back to [1, heads, T, size], in memory [T, heads, size] as projections lie."""
    return part.transpose(0, 1).flatten(1, 2)[None].transpose(1, 2)


def _weights(
    q: Tensor,
    k: Tensor,
    group: Group,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Softmax of the masked scores: [kv heads, queries * groups, keys]."""
    kernels = _kernels(q) if softcap is None else None
    if kernels is not None:
        return group.causal(q, window).softmax_(q @ k.transpose(1, 2), scale, kernels)
    bias = group.bias(window, q.shape[1] // group.count, q.dtype)
    if softcap is None:
        return torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale).softmax(-1)
    capped = torch.tanh((q @ k.transpose(1, 2)) * (scale / softcap)) * softcap
    return (capped + bias).softmax(-1)


def _d_scores(
    d_weight: Tensor, weight: Tensor, group: Group, scale: float, window: int | None
) -> Tensor:
    """Of the scores, for that of their softmax, which is overwritten.

    scale * weight * (d_weight - sum of weight * d_weight).
    """
    kernels = _kernels(weight)
    if kernels is not None:
        return group.causal(weight, window).backward_(d_weight, weight, scale, kernels)
    found: Tensor = torch.ops.aten._softmax_backward_data(d_weight, weight, -1, weight.dtype)
    return found.mul_(scale)


def _kernels(like: Tensor) -> softmax.Kernels | None:
    return softmax.kernels(like.dtype) if like.device.type == "cpu" else None
