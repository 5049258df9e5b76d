"""RMSNorm as one differentiable function (Zhang and Sennrich, 2019).

y = w x / rms(x) with w frozen. Autograd over the model's own operations keeps two fp32 copies of x
and makes four more in the backward pass. A step of SmolLM2 has 61 of them: 86 ms of 1196 tokens in
bf16 by torch's operations (one core of an AMD EPYC, Zen 5), 22 by rms_norm.c, which a CPU with a C
compiler takes.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from raylora.jobs.train.fusion import fuse
from raylora.lora.base import LLAMA_LIKE
from raylora.lora.native import library

_NORMS = frozenset(f"{family}RMSNorm" for family in LLAMA_LIKE)
"""Classes of transformers that multiply by w in x's dtype; Gemma's multiplies by 1 + w in fp32."""
_SOURCE = Path(__file__).with_name("rms_norm.c")


def fuse_norms(model: nn.Module) -> int:
    """Let frozen norms use it; the number of them."""
    fused = 0
    for module in model.modules():
        norm: Any = module
        if type(module).__name__ in _NORMS and not norm.weight.requires_grad:
            fuse(module, _forward_of(norm))
            fused += 1
    return fused


def _forward_of(norm: Any) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        weight, epsilon = norm.weight, norm.variance_epsilon
        alike = x.device.type == "cpu" and weight.dtype is x.dtype
        kernels = _kernels(x.dtype) if alike else None
        if kernels is None:
            return _RmsNorm.apply(x, weight, epsilon)
        return _Compiled.apply(x, weight, epsilon, kernels)

    return forward


class _RmsNorm(torch.autograd.Function):
    """[..., size] to [..., size]; x / rms(x) is kept in x's dtype, with one number a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        unit = (wide * scale).to(x.dtype)
        ctx.save_for_backward(unit, weight, scale)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        unit, weight, scale = ctx.saved_tensors
        grad = grads[0] * weight
        # What would change the length of x has no effect: its share is taken out.
        along = torch.linalg.vecdot(grad, unit).div_(-unit.shape[-1])[..., None]
        across = torch.addcmul(grad, unit, along)
        # Not by a scale in bf16: that is off by up to 0.4 % for a whole row.
        return across.float().mul_(scale).to(unit.dtype), None, None


class _Kernels(NamedTuple):
    """Of rms_norm.c, for one number format."""

    forward: Callable[..., None]
    backward: Callable[..., None]


@functools.cache
def _kernels(dtype: torch.dtype) -> _Kernels | None:
    found = library(_SOURCE, dtype)
    if found is None:
        return None
    pointer, number, whole = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    forward, backward = found.rms_norm, found.rms_norm_backward
    forward.argtypes = [*(pointer,) * 2, ctypes.c_float, *(pointer,) * 2, number, number, whole]
    backward.argtypes = [*(pointer,) * 5, number, number, whole]
    forward.restype = backward.restype = None
    return _Kernels(forward, backward)


class _Compiled(torch.autograd.Function):
    """The same; x is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, kernels: _Kernels) -> Tensor:
        x = x.contiguous()
        out = torch.empty_like(x)
        scales = torch.empty(x.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(x, weight, scales)
        ctx.kernels = kernels
        size = (scales.numel(), x.shape[-1], torch.get_num_threads())
        pointers = (t.data_ptr() for t in (out, scales))
        kernels.forward(x.data_ptr(), weight.data_ptr(), epsilon, *pointers, *size)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scales = ctx.saved_tensors
        grad, d_x = grads[0].contiguous(), torch.empty_like(x)
        size = (scales.numel(), x.shape[-1], torch.get_num_threads())
        pointers = (t.data_ptr() for t in (grad, x, weight, scales, d_x))
        ctx.kernels.backward(*pointers, *size)
        return d_x, None, None, None
