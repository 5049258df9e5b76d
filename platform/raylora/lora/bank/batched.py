"""Adapters of a batch in two batched products a layer, on any device.

The adapters lie side by side in their stack. Rows are put beside their adapters, as many places
for each as the one with most rows needs, and what does not belong to a row is dropped at the end.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from raylora.lora.bank.layout import Weights
from raylora.lora.bank.scales import row_scales
from raylora.lora.bank.stacks import Stack

Rows = Mapping[str, Sequence[int]]
"""Adapter to its batch rows."""


def waste(stack: Stack, rows: Rows) -> float:
    """Rows that batched products compute, over those that are wanted."""
    window = stack.table.window(list(rows))
    wanted = sum(len(own) for own in rows.values())
    return len(window) * _depth(rows) / wanted


class Batched:
    """Products over the slots from the first to the last of these adapters."""

    def __init__(
        self, stack: Stack, rows: Rows, adapters: Mapping[str, Weights], batch: int
    ) -> None:
        window = stack.table.window(list(rows))
        self._stack = stack
        self._window = slice(window.start, window.stop)
        self._depth = _depth(rows)
        beside = [0] * (len(window) * self._depth)
        places: dict[int, int] = {}
        for key, own in rows.items():
            start = (stack.table[key] - window.start) * self._depth
            for place, row in enumerate(own, start):
                beside[place], places[row] = row, place
        order = sorted(places)
        straight = beside == list(range(batch)) and len(order) == batch
        self._beside = None if straight else self._tensor(beside)
        """Batch row at each place; None where that is 0, 1, 2 ... Places left over have row 0."""
        self._places = None if straight else self._tensor([places[row] for row in order])
        """Place of each row, in the order of rows."""
        self._rows = None if len(order) == batch else self._tensor(order)
        """Batch rows that have an adapter; None for all."""
        self._scales = {
            layer: values[:, None, None]
            for layer, values in row_scales(rows, adapters, order, stack.device).items()
        }
        self._seen: Tensor | None = None
        """Input of the running call, by identity."""
        self._products: Tensor | None = None
        """A x for `_seen`, [slots, rows a slot * tokens, rank * layers]."""

    def add(self, layer: str, x: Tensor, out: Tensor) -> None:
        """Add to `out` [batch, tokens, out], in place, for `x` [batch, tokens, in]."""
        if self._seen is not x:
            beside = x if self._beside is None else x.index_select(0, self._beside)
            beside = beside.unflatten(0, (-1, self._depth)).flatten(1, 2)
            a = self._stack.a[layer][self._window].to(x.dtype)
            self._products = _each_by_its_own(beside, a)
            self._seen = x
        assert self._products is not None
        layout = self._stack.layout
        own = self._products[..., layout.rows(layer, layout.rank)]
        b, scale = self._stack.b[layer][self._window].to(x.dtype), self._scales.get(layer)
        if self._places is None and scale is None and b.dtype is torch.float32:
            # 20 against 34 ms a layer for 16 prompts. In 16 bits it would round less than PEFT.
            out.view(b.shape[0], -1, b.shape[2]).baddbmm_(own, b)
            return
        delta = torch.bmm(own, b).unflatten(1, (self._depth, -1)).flatten(0, 1)
        # What filled the other places is dropped here, so an overflow stays in its row.
        if self._places is not None:
            delta = delta.index_select(0, self._places)
        if scale is not None:
            torch.mul(delta, scale, out=delta)
        if self._rows is None:
            out += delta
        else:
            out.index_add_(0, self._rows, delta)

    def forget_input(self) -> None:
        """Let go of the last call's activations."""
        self._seen = self._products = None

    def _tensor(self, indices: Sequence[int]) -> Tensor:
        return torch.tensor(indices, device=self._stack.device)


def _depth(rows: Rows) -> int:
    return max(len(own) for own in rows.values())


def _each_by_its_own(x: Tensor, a: Tensor) -> Tensor:
    """A x of each slot, [slots, rows, rank], for `x` [slots, rows, in], `a` [slots, rank, in].

    In 16 bits oneDNN rearranges the matrix on the right at every call, so that is to be the small
    one: 3.8 against 11.1 ms for 30 layers of 16 slots. In fp32 it is the other way round, 9.5
    against 3.8.
    """
    if a.dtype is torch.float32:
        return torch.bmm(x, a.transpose(1, 2))
    return torch.bmm(a, x.transpose(1, 2)).transpose(1, 2)
