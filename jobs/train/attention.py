"""Attention for short rows on a CPU: two batched matrix products and a softmax.

torch's fused attention spends most of its time in the backward pass there: forward and backward of
4 rows of 110 tokens with 9 heads take 23 ms fused and 8 ms this way (one thread, bf16, AMX), a
fifth of a training step. At 256 tokens the two are even; beyond, the fused one wins.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "raylora_short_rows"
"""Under which transformers knows it."""

LONGEST = 256
"""Tokens of a row up to which it is faster."""


def use_short_attention(model: PreTrainedModel) -> None:
    """Let a model that trains on a CPU use it for rows that are short and causal, else torch's."""
    config: Any = model.config
    if model.device.type != "cpu" or config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, short_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def short_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: [rows, heads, length, size] in, heads second in.

    A mask (sliding windows, packed rows) and dropout are left to torch's.
    """
    _, heads, length, size = query.shape
    plain = attention_mask is None and dropout == 0 and length == key.shape[2] <= LONGEST
    if not plain:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            **kwargs,
        )
    groups = heads // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scores = query @ key.transpose(2, 3) * (size**-0.5 if scaling is None else scaling)
    future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    weights = scores.masked_fill(future, float("-inf")).softmax(-1, dtype=torch.float32)
    return (weights.to(query.dtype) @ value).transpose(1, 2).contiguous(), None
