"""A linear layer with its adapter as one differentiable function.

y = x W' + s (x A') B' with W frozen (Hu et al., 2021). Autograd over PEFT's separate operations
keeps two copies of the layer's output and adds them, forward and backward; here the adapter's
product is added in place and only x and x A' are kept.
"""

from collections.abc import Callable
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from raylora.jobs.train.fusion import fuse

Weight = Callable[[], Tensor]
"""Gives a frozen weight [out, in] in the compute dtype, unpacked anew where it is packed."""

ADAPTER = "default"
"""PEFT's name of the one adapter that trains."""


def fuse_lora(model: PeftModel) -> int:
    """Let the layers with a plain adapter use it; the number of them.

    Left as they are: DoRA, dropout, and bases stored in other than 16, 32 or 4 bits.
    """
    fused = 0
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and _is_plain(layer):
            fuse(layer, _forward_of(layer))
            fused += 1
    return fused


def _is_plain(layer: LoraLayer) -> bool:
    base: Any = layer.get_base_layer()
    return (
        ADAPTER in layer.lora_A
        and isinstance(layer.lora_dropout[ADAPTER], nn.Identity)
        and not layer.use_dora.get(ADAPTER, False)
        and (type(base) is nn.Linear or isinstance(base, Linear4bit))
    )


def _forward_of(layer: Any) -> Callable[[Tensor], Tensor]:
    base = layer.get_base_layer()
    weight, scale = _weight(base), float(layer.scaling[ADAPTER])
    a, b = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]

    def forward(x: Tensor) -> Tensor:
        return _LoraLinear.apply(x, a.weight, b.weight, base.bias, weight, scale)

    return forward


def _weight(base: Any) -> Weight:
    weight: Any = base.weight
    if isinstance(base, Linear4bit):
        return lambda: dequantize_4bit(weight.data, weight.quant_state)
    return lambda: weight


class _LoraLinear(torch.autograd.Function):
    """[..., in] to [..., out]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        bias: Tensor | None,
        weight: Weight,
        scale: float,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ a.t()
        w = weight()
        y = rows @ w.t() if bias is None else torch.addmm(bias, rows, w.t())
        y.addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(rows, low, a, b)
        ctx.settings = (weight, scale)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, a, b = ctx.saved_tensors
        weight, scale = ctx.settings
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        d_low = (grad @ b) * scale
        d_a = d_low.t() @ rows
        d_b = (grad.t() @ low) * scale
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = grad @ weight()
            d_x.addmm_(d_low, a)
            d_x = d_x.view(*grads[0].shape[:-1], -1)
        return d_x, d_a, d_b, None, None, None
