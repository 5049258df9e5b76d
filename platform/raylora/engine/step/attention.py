"""Attention of a step on a CPU, one query a row; where a C compiler is there.

attention.c says how. 30 layers of SmolLM2 on one core of an AMD EPYC (Zen 4), by torch and by
it: 16 rows of 100 tokens 14.1 and 7.1 ms in fp32, 16 of 400 tokens 43 and 17. In bf16 it was as
fast until it had the instructions for it: 4.6 ms of a step of 16 rows, and 1.8 with them (Zen 5).
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from raylora.lora.native import library

NAME = "raylora_step"
"""Under which transformers knows it."""
MOST_SIZE = 256
"""The largest head that the kernel takes."""

_SOURCE = Path(__file__).with_name("attention.c")
_TORCH = "sdpa"


def use_step_attention(model: Any) -> bool:
    """Let a model on a CPU attend so where it attends by torch's; whether it does."""
    if model.device.type != "cpu" or model.config._attn_implementation != _TORCH:
        return False
    if attention_kernel(model.dtype) is None:
        return False
    AttentionInterface.register(NAME, step_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return True


def step_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: [rows, heads, T, size] in, [rows, T, heads, size] out.

    More than one query a row, and all else that the kernel does not know, is torch's.
    """
    kernel = attention_kernel(query.dtype) if _fits(query, key, value, attention_mask) else None
    if kernel is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    rows, heads, _, size = query.shape
    kv_heads, columns = key.shape[1:3]
    queries = query.reshape(rows, heads, size).contiguous()
    out = torch.empty_like(queries)
    seen, apart = None, 0
    if attention_mask is not None:
        seen = attention_mask[:, 0, 0].expand(rows, columns)
        apart = seen.stride(0)
    kernel(
        queries.data_ptr(),
        key.data_ptr(),
        value.data_ptr(),
        key.stride(0),
        key.stride(1),
        None if seen is None else seen.data_ptr(),
        apart,
        rows,
        kv_heads,
        heads // kv_heads,
        columns,
        size,
        size**-0.5 if scaling is None else scaling,
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out[:, None], None


@functools.cache
def attention_kernel(dtype: torch.dtype) -> Callable[..., None] | None:
    """The function of attention.c; None where it cannot be had."""
    found = library(_SOURCE, dtype)
    if found is None:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    attend = found.step_attention
    attend.argtypes = [*(pointer,) * 3, number, number, pointer, *(number,) * 6]
    attend.argtypes += [ctypes.c_float, pointer, ctypes.c_int]
    attend.restype = None
    return attend


def _fits(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    size = query.shape[3]
    if query.shape[2] != 1 or query.device.type != "cpu" or torch.is_grad_enabled():
        return False
    if size > MOST_SIZE or key.shape != value.shape or key.stride() != value.stride():
        return False
    if key.stride()[2:] != (size, 1) or key.dtype is not query.dtype:
        return False
    return mask is None or (
        mask.dtype is torch.bool and mask.shape[1:3] == (1, 1) and mask.stride(3) == 1
    )
