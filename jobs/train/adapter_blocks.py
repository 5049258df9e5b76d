"""The products of adapters by torch: neighbouring parts of a pass together, on any device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raylora.jobs.train.route import Block

_ALL = slice(None)


@dataclass(frozen=True)
class Share:
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


@dataclass(frozen=True)
class BlockProducts:
    """See Products in lora_linear.py."""

    shares: Sequence[Share]

    def add(self, x: Tensor, y: Tensor, pairs: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """See Products."""
        a, b = pairs[::2], pairs[1::2]
        many_a = [_together(a[share.block.parts], 0) for share in self.shares]
        many_b = [_together(b[share.block.parts], 1) for share in self.shares]
        lows: list[Tensor] = []
        masks: list[Tensor | None] = []
        for share, own_a, own_b in zip(self.shares, many_a, many_b, strict=True):
            own = share.of(x)
            masks.append(share.kept(own))
            lows.append((share.dropped(own, masks[-1]) @ own_a.t()).mul_(share.block.scale))
            share.of(y).addmm_(lows[-1], own_b.t())
        return [*many_a, *many_b, *lows, *masks]

    def gradients(
        self, grad: Tensor, x: Tensor, kept: Sequence[Any], d_x: Tensor | None
    ) -> Sequence[Tensor]:
        """See Products."""
        d_pairs: list[Tensor] = []
        for share, a, b, low, mask in zip(self.shares, *_quarters(kept), strict=True):
            own, sizes = share.of(grad), share.block.ranks
            d_low = (own @ b).mul_(share.block.scale)
            d_a = d_low.t() @ share.dropped(share.of(x), mask)
            d_b = own.t() @ low
            for pair in zip(d_a.split(sizes), d_b.split(sizes, 1), strict=True):
                d_pairs += pair
            if d_x is None:
                continue
            if mask is None:
                share.of(d_x).addmm_(d_low, a)
            else:
                share.of(d_x).add_(share.dropped(d_low @ a, mask))
        return d_pairs


def _together(matrices: Sequence[Tensor], dimension: int) -> Tensor:
    return matrices[0] if len(matrices) == 1 else torch.cat(list(matrices), dimension)


def _quarters(kept: Sequence[Any]) -> list[Sequence[Any]]:
    size = len(kept) // 4
    return [kept[start : start + size] for start in range(0, len(kept), size)]
