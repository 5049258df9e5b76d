"""A linear layer with the adapters of a pass as one differentiable function.

y = x W' + s (x A') B' with W frozen (Hu et al., 2021), each token through the adapter of its part.
Autograd over PEFT's separate operations keeps two copies of the layer's output and adds them,
forward and backward; here the adapter's product is added in place and only x and x A' are kept.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from raylora.jobs.train.adapter_blocks import BlockProducts, Share
from raylora.jobs.train.adapter_products import products_of
from raylora.jobs.train.fusion import fuse
from raylora.jobs.train.route import Adapter, Part, Route

Weight = Callable[[], Tensor]
"""Gives a frozen weight [out, in] in the compute dtype, unpacked anew where it is packed."""


class Products(Protocol):
    """Of the adapters of a pass; x is [tokens, in], y [tokens, out]."""

    def add(self, x: Tensor, y: Tensor, pairs: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Add to y what the adapters give for x; what the gradients need of it besides x.

        pairs: A and B of each part in turn.
        """
        ...

    def gradients(
        self, grad: Tensor, x: Tensor, kept: Sequence[Any], d_x: Tensor | None
    ) -> Sequence[Tensor]:
        """Of the pairs, for `grad` of y; the adapters' share of that of x is added to d_x."""
        ...


def fuse_lora(model: PeftModel, route: Route) -> int:
    """Let the layers with plain adapters use it, along `route`; the number of them.

    Left as they are: DoRA, and bases stored in other than 16, 32 or 4 bits.
    """
    fused = 0
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and _is_plain(layer):
            fuse(layer, _forward_of(layer, fused, route))
            fused += 1
    return fused


def _is_plain(layer: LoraLayer) -> bool:
    base: Any = layer.get_base_layer()
    return (
        len(layer.lora_A) > 0
        and not any(layer.use_dora.values())
        and (type(base) is nn.Linear or isinstance(base, Linear4bit))
    )


def _forward_of(layer: Any, index: int, route: Route) -> Callable[[Tensor], Tensor]:
    base = layer.get_base_layer()
    weight = _weight(base)

    def adapter(part: Part) -> Adapter:
        name = part.adapter
        dropout: Any = layer.lora_dropout[name]
        rate = dropout.p if layer.training and isinstance(dropout, nn.Dropout) else 0.0
        return Adapter(len(layer.lora_A[name].weight), float(layer.scaling[name]), rate)

    def forward(x: Tensor) -> Tensor:
        parts = route.parts
        pairs = [
            pair.weight
            for part in parts
            for pair in (layer.lora_A[part.adapter], layer.lora_B[part.adapter])
        ]
        adapters = tuple(map(adapter, parts))
        products = products_of(parts, adapters, x, layer.out_features) or BlockProducts(
            [
                Share(block, lambda rows, block=block: block.kept(index, rows))
                for block in route.blocks(adapters, x)
            ]
        )
        return _LoraLinear.apply(x, base.bias, weight, products, *pairs)

    return forward


def _weight(base: Any) -> Weight:
    weight: Any = base.weight
    if isinstance(base, Linear4bit):
        return lambda: dequantize_4bit(weight.data, weight.quant_state)
    return lambda: weight


class _LoraLinear(torch.autograd.Function):
    """[..., in] to [..., out]; the pairs are A and B of each part in turn."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor | None,
        weight: Weight,
        products: Products,
        *pairs: Tensor,
    ) -> Tensor:
        rows, w = x.reshape(-1, x.shape[-1]).contiguous(), weight()
        y = rows @ w.t() if bias is None else torch.addmm(bias, rows, w.t())
        ctx.save_for_backward(rows, *products.add(rows, y, pairs))
        ctx.settings = (weight, products)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, products = ctx.settings
        rows, *kept = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1]).contiguous()
        d_x = grad @ weight() if ctx.needs_input_grad[0] else None
        d_pairs = products.gradients(grad, rows, kept, d_x)
        shaped = None if d_x is None else d_x.view(*grads[0].shape[:-1], -1)
        return shaped, None, None, None, *d_pairs
