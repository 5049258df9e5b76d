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
from raylora.jobs.train.route import Part, Route

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
    """What one part of a pass adds to a layer's output."""

    tokens: slice
    scale: float
    dropout: float
    kept: Callable[[Tensor], Tensor | None]
    """Of the part's rows of x, the elements that dropout keeps."""

    def of(self, rows: Tensor) -> Tensor:
        """The part's rows, which share memory with `rows`."""
        return rows if self.tokens == _ALL else rows[self.tokens]

    def dropped(self, rows: Tensor, kept: Tensor | None) -> Tensor:
        """Elements that are not kept are 0, the others larger for it."""
        return rows if kept is None else rows * (kept.to(rows.dtype) / (1 - self.dropout))


def _forward_of(layer: Any, index: int, route: Route) -> Callable[[Tensor], Tensor]:
    base = layer.get_base_layer()
    weight = _weight(base)

    def share(part: Part) -> _Share:
        dropout: Any = layer.lora_dropout[part.adapter]
        rate = dropout.p if layer.training and isinstance(dropout, nn.Dropout) else 0.0
        return _Share(
            part.tokens,
            float(layer.scaling[part.adapter]),
            rate,
            lambda rows: part.kept(index, rate, rows),
        )

    def forward(x: Tensor) -> Tensor:
        parts = route.parts
        pairs = [
            pair.weight
            for part in parts
            for pair in (layer.lora_A[part.adapter], layer.lora_B[part.adapter])
        ]
        shares = [share(part) for part in parts]
        return _LoraLinear.apply(x, base.bias, weight, shares, *pairs)

    return forward


def _weight(base: Any) -> Weight:
    weight: Any = base.weight
    if isinstance(base, Linear4bit):
        return lambda: dequantize_4bit(weight.data, weight.quant_state)
    return lambda: weight


class _LoraLinear(torch.autograd.Function):
    """[..., in] to [..., out]; the pairs are A and B of each share in turn."""

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
        lows: list[Tensor] = []
        masks: list[Tensor | None] = []
        for share, a in zip(shares, pairs[::2], strict=True):
            own = share.of(rows)
            masks.append(share.kept(own))
            lows.append(share.dropped(own, masks[-1]) @ a.t())
        w = weight()
        y = rows @ w.t() if bias is None else torch.addmm(bias, rows, w.t())
        for share, low, b in zip(shares, lows, pairs[1::2], strict=True):
            share.of(y).addmm_(low, b.t(), alpha=share.scale)
        ctx.save_for_backward(rows, *pairs, *lows, *masks)
        ctx.settings = (weight, shares)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, shares = ctx.settings
        rows, *kept = ctx.saved_tensors
        pairs, lows, masks = _split(kept, 2 * len(shares), len(shares))
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        d_lows: list[Tensor] = []
        d_pairs: list[Tensor] = []
        for share, b, low, mask in zip(shares, pairs[1::2], lows, masks, strict=True):
            own = share.of(grad)
            d_lows.append((own @ b) * share.scale)
            d_pairs.append(d_lows[-1].t() @ share.dropped(share.of(rows), mask))
            d_pairs.append((own.t() @ low) * share.scale)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, *d_pairs
        d_x = grad @ weight()
        for share, a, d_low, mask in zip(shares, pairs[::2], d_lows, masks, strict=True):
            if mask is None:
                share.of(d_x).addmm_(d_low, a)
            else:
                share.of(d_x).add_(share.dropped(d_low @ a, mask))
        return d_x.view(*grads[0].shape[:-1], -1), None, None, None, *d_pairs


def _split(
    kept: Sequence[Any], pairs: int, lows: int
) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor | None]]:
    return kept[:pairs], kept[pairs : pairs + lows], kept[pairs + lows :]
