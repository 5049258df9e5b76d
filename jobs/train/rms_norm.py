"""RMSNorm as one differentiable function (Zhang and Sennrich, 2019).

y = w x / rms(x) with w frozen. Autograd over the model's own operations keeps two fp32 copies of x
and makes four more in the backward pass; here x / rms(x) is kept in x's dtype, with one number a
row. A step of SmolLM2 has 61 of them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from raylora.jobs.train.fusion import fuse
from raylora.lora.base import LLAMA_LIKE

_NORMS = frozenset(f"{family}RMSNorm" for family in LLAMA_LIKE)
"""Classes of transformers that multiply by w in x's dtype; Gemma's multiplies by 1 + w in fp32."""


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
        return _RmsNorm.apply(x, norm.weight, norm.variance_epsilon)

    return forward


class _RmsNorm(torch.autograd.Function):
    """[..., size] to [..., size]."""

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
