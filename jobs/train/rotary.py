"""Rotary position embeddings as one differentiable function (Su et al., 2021).

transformers turns queries and keys by five operations each, autograd undoes them by as many. For
768 tokens through SmolLM2 (bf16, one core of an Intel Xeon with AMX) that is 68 ms of a step, and
26 by rotary.c, which a CPU with a C compiler takes.
"""

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raylora.lora.base import LLAMA_LIKE
from raylora.lora.native import library

Rotate = Callable[..., tuple[Tensor, Tensor]]
"""As transformers has it: (q, k, cos, sin) to q and k, both [batch, heads, T, size]."""
_NAME = "apply_rotary_pos_emb"
_ATTENTIONS = frozenset(f"{family}Attention" for family in LLAMA_LIKE)
_SOURCE = Path(__file__).with_name("rotary.c")


def fuse_rotations(model: nn.Module) -> int:
    """Let a model's family use it; the number of layers that do.

    They call a function of their module in transformers, so other models of the family use it too:
    it gives the same numbers bit for bit.
    """
    layers = [layer for layer in model.modules() if type(layer).__name__ in _ATTENTIONS]
    for name in {type(layer).__module__ for layer in layers}:
        family: Any = sys.modules[name]
        own = getattr(family, _NAME)
        if not isinstance(own, _Rotation):
            setattr(family, _NAME, _Rotation(own))
    return len(layers)


class _Rotation:
    """In place of transformers' function, which has its turn where the kernel does not serve."""

    def __init__(self, own: Rotate) -> None:
        self._own = own

    def __call__(
        self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        alike = q.dtype is k.dtype is cos.dtype and cos.shape == (1, q.shape[2], q.shape[3])
        serves = q.device.type == "cpu" and len(q) == 1 and alike and not (args or kwargs)
        kernel = _kernel(q.dtype) if serves else None
        if kernel is None:
            return self._own(q, k, cos, sin, *args, **kwargs)
        return tuple(_Rotated.apply(part, cos, sin, kernel) for part in (q, k))


@functools.cache
def _kernel(dtype: torch.dtype) -> Callable[..., None] | None:
    """Of rotary.c, for one number format."""
    found = library(_SOURCE, dtype)
    if found is None:
        return None
    pointer, number, whole = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    found.rotate.argtypes = [*(pointer,) * 4, *(number,) * 3, whole, whole]
    found.rotate.restype = None
    return found.rotate


class _Rotated(torch.autograd.Function):
    """[1, heads, T, size] to the same, in memory [T, heads, size] as projections lie."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, kernel: Callable[..., None]
    ) -> Tensor:
        cos, sin = cos.contiguous(), sin.contiguous()
        ctx.save_for_backward(cos, sin)
        ctx.kernel = kernel
        return _by_token(kernel, x, cos, sin, back=False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _by_token(ctx.kernel, grads[0], *ctx.saved_tensors, back=True), None, None, None


def _by_token(
    kernel: Callable[..., None], x: Tensor, cos: Tensor, sin: Tensor, *, back: bool
) -> Tensor:
    tokens = x.transpose(1, 2).contiguous()
    out = torch.empty_like(tokens)
    pointers = (part.data_ptr() for part in (tokens, cos, sin, out))
    kernel(*pointers, *tokens.shape[1:], back, torch.get_num_threads())
    return out.transpose(1, 2)
