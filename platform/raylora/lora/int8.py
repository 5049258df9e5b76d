"""8-bit layers that multiply in the compute dtype.

bitsandbytes multiplies in 8 bits and sets the columns apart in which any row of the batch has an
outlier (LLM.int8, Dettmers et al., 2022), so that a row's numbers depend on its neighbours: logits
of SmolLM2 move by over 2 when other rows of the batch change, and packed documents would not be
apart. Only the storage is taken from it here.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def multiply_in_compute_dtype(model: nn.Module) -> None:
    """Let every 8-bit layer of a model unpack its weight to multiply, and keep it packed."""
    from bitsandbytes.nn.modules import Linear8bitLt

    for module in model.modules():
        if isinstance(module, Linear8bitLt):
            layer: Any = module
            layer.forward = _forward_of(layer)


def _forward_of(layer: Any) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        return _Linear.apply(x, layer.weight.data, layer.weight.SCB, layer.bias)

    return forward


class _Linear(torch.autograd.Function):
    """x W' + bias; the weight is unpacked again for the backward pass instead of kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(packed, scales)
        return nn.functional.linear(x, _unpacked(packed, scales, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        packed, scales = ctx.saved_tensors
        return gradient @ _unpacked(packed, scales, gradient.dtype), None, None, None


def _unpacked(packed: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    from bitsandbytes.functional import int8_vectorwise_dequant

    return int8_vectorwise_dequant(packed, scales).to(dtype)
