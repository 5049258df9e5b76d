"""A linear layer with the adapters of a pass as one differentiable function.

y = x W' + s (x A') B' with W frozen (Hu et al., 2021), each token through the adapter of its part.
Autograd over PEFT's separate operations keeps two copies of the layer's output and adds them,
forward and backward; here the adapter's product is added in place and only x and x A' are kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from raylora.jobs.train.fusion import fuse
from raylora.jobs.train.route import Adapter, Block, Part, Route

Weight = Callable[[], Tensor]
"""Gives a frozen weight [out, in] in the compute dtype, unpacked anew where it is packed."""

_ALL = slice(None)


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


@dataclass(frozen=True)
class _Share:
    """What neighbouring parts of a pass add to a layer's output."""

    block: Block
    kept: Callable[[Tensor], Tensor | None]
    """Of the block's rows of x, the elements that dropout keeps."""

    def of(self, rows: Tensor) -> Tensor:
        """The block's rows, which share memory with `rows`."""
        return rows if self.block.tokens == _ALL else rows[self.block.tokens]

    def dropped(self, rows: Tensor, kept: Tensor | None) -> Tensor:
        """Elements that are not kept are 0, the others larger for it."""
        return rows if kept is None else rows * (kept.to(rows.dtype) / (1 - self.block.dropout))


def _forward_of(layer: Any, index: int, route: Route) -> Callable[[Tensor], Tensor]:
    base = layer.get_base_layer()
    weight = _weight(base)

    def adapter(part: Part) -> Adapter:
        name = part.adapter
        dropout: Any = layer.lora_dropout[name]
        rate = dropout.p if layer.training and isinstance(dropout, nn.Dropout) else 0.0
        return Adapter(len(layer.lora_A[name].weight), float(layer.scaling[name]), rate)

    def share(block: Block) -> _Share:
        return _Share(block, lambda rows: block.kept(index, rows))

    def forward(x: Tensor) -> Tensor:
        parts = route.parts
        pairs = [
            pair.weight
            for part in parts
            for pair in (layer.lora_A[part.adapter], layer.lora_B[part.adapter])
        ]
        blocks = route.blocks(tuple(map(adapter, parts)), x)
        return _LoraLinear.apply(x, base.bias, weight, list(map(share, blocks)), *pairs)

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
        shares: Sequence[_Share],
        *pairs: Tensor,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        a, b = pairs[::2], pairs[1::2]
        many_a = [_together(a[share.block.parts], 0) for share in shares]
        many_b = [_together(b[share.block.parts], 1) for share in shares]
        lows: list[Tensor] = []
        masks: list[Tensor | None] = []
        for share, own_a in zip(shares, many_a, strict=True):
            own = share.of(rows)
            masks.append(share.kept(own))
            lows.append((share.dropped(own, masks[-1]) @ own_a.t()).mul_(share.block.scale))
        w = weight()
        y = rows @ w.t() if bias is None else torch.addmm(bias, rows, w.t())
        for share, low, own_b in zip(shares, lows, many_b, strict=True):
            share.of(y).addmm_(low, own_b.t())
        ctx.save_for_backward(rows, *many_a, *many_b, *lows, *masks)
        ctx.settings = (weight, shares, [len(one) for one in a])
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, shares, ranks = ctx.settings
        rows, *kept = ctx.saved_tensors
        many_a, many_b, lows, masks = _quarters(kept)
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        d_lows: list[Tensor] = []
        d_pairs: list[Tensor] = []
        for share, b, low, mask in zip(shares, many_b, lows, masks, strict=True):
            own, sizes = share.of(grad), ranks[share.block.parts]
            d_lows.append((own @ b).mul_(share.block.scale))
            d_a = d_lows[-1].t() @ share.dropped(share.of(rows), mask)
            d_b = own.t() @ low
            for pair in zip(d_a.split(sizes), d_b.split(sizes, 1), strict=True):
                d_pairs += pair
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, *d_pairs
        d_x = grad @ weight()
        for share, a, d_low, mask in zip(shares, many_a, d_lows, masks, strict=True):
            if mask is None:
                share.of(d_x).addmm_(d_low, a)
            else:
                share.of(d_x).add_(share.dropped(d_low @ a, mask))
        return d_x.view(*grads[0].shape[:-1], -1), None, None, None, *d_pairs


def _together(matrices: Sequence[Tensor], dimension: int) -> Tensor:
    return matrices[0] if len(matrices) == 1 else torch.cat(list(matrices), dimension)


def _quarters(kept: Sequence[Any]) -> list[Sequence[Any]]:
    size = len(kept) // 4
    return [kept[start : start + size] for start in range(0, len(kept), size)]
